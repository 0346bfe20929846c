"""Alert definitions: reads by id and key.

`store.alerts.active_rules` reads the rules of active alerts. `store.alerts.lists` lists alerts,
`store.alerts.creation` creates them, and `store.alerts.changes` changes them.
"""

from collections.abc import Collection

from psycopg.rows import dict_row
from sqlalchemy import ARRAY, any_, bindparam, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import AlertDefinition
from runtime.turns import Slices
from store.alerts.rows import definition_of
from store.postgres.database import driver
from store.tables.alerts import alert
from store.tables.base import Identifier

DECODED_AT_ONCE = 25  # rows that the driver decodes without a pause

# Built once: building it takes as long as its execution.
_WITH_ID = select(alert).where(
    alert.c.organization_id == bindparam("organization"), alert.c.alert_id == bindparam("alert")
)

_WITH_IDS = f"""
SELECT {", ".join(column.name for column in alert.columns)} FROM alert
WHERE organization_id = %(organization_id)s AND alert_id = ANY(%(alert_ids)s)
""".encode()


async def get(connection: AsyncConnection, organization_id: int, alert_id: str) -> AlertDefinition | None:
    """The alert of that id, archived or not; None when the organization has none."""
    found = await connection.execute(_WITH_ID, {"organization": organization_id, "alert": alert_id})
    row = found.mappings().one_or_none()
    return None if row is None else definition_of(row)


async def get_many(
    connection: AsyncConnection, organization_id: int, alert_ids: Collection[str]
) -> dict[str, AlertDefinition]:
    """The alerts with these ids, by id; ids of no alert are left out."""
    found, slices = dict[str, AlertDefinition](), Slices(organization_id)
    async with (await driver(connection)).cursor(row_factory=dict_row) as cursor:
        parameters = {"organization_id": organization_id, "alert_ids": list(alert_ids)}
        # Planned anew: a plan that was made while the table was small reads all of it, and is kept while it grows.
        await cursor.execute(_WITH_IDS, parameters, prepare=False)
        slices.begin_at_once()
        while rows := await cursor.fetchmany(DECODED_AT_ONCE):
            for row in rows:
                found[row["alert_id"]] = definition_of(row)
                await slices.pause()
    return found


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
