"""Alert definitions: reads by id and key.

`store.alerts.active_rules` reads the rules of active alerts. `store.alerts.lists` lists alerts,
`store.alerts.creation` creates them, and `store.alerts.changes` changes them.
"""

from collections.abc import Collection

from sqlalchemy import ARRAY, any_, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import AlertDefinition
from store.alerts.rows import definition_of
from store.tables.alerts import alert
from store.tables.base import Identifier


async def get(connection: AsyncConnection, organization_id: int, alert_id: str) -> AlertDefinition | None:
    """The alert of that id, archived or not; None when the organization has none."""
    found = await connection.execute(
        select(alert).where(alert.c.organization_id == organization_id, alert.c.alert_id == alert_id)
    )
    row = found.mappings().one_or_none()
    return None if row is None else definition_of(row)


async def get_many(
    connection: AsyncConnection, organization_id: int, alert_ids: Collection[str]
) -> dict[str, AlertDefinition]:
    """The alerts with these ids, by id; ids of no alert are left out."""
    found = await connection.execute(
        select(alert).where(
            alert.c.organization_id == organization_id,
            alert.c.alert_id == any_(cast(list(alert_ids), ARRAY(Identifier))),
        )
    )
    return {row["alert_id"]: definition_of(row) for row in found.mappings()}


async def having_keys(
    connection: AsyncConnection, organization_id: int, uniqueness_keys: Collection[str]
) -> dict[str, AlertDefinition]:
    """The alerts that have these uniqueness keys, by key; keys that no alert has are left out."""
    if not uniqueness_keys:
        return {}
    found = await connection.execute(
        select(alert).where(
            alert.c.organization_id == organization_id,
            alert.c.uniqueness_key_held,
            alert.c.uniqueness_key == any_(cast(list(uniqueness_keys), ARRAY(Identifier))),
        )
    )
    return {row["uniqueness_key"]: definition_of(row) for row in found.mappings()}
