"""Alert definitions: reads by id and key, and those of the registry of rules.

`store.alerts.lists` lists them, `store.alerts.creation` creates them, and `store.alerts.changes` changes them.
"""

from collections.abc import Collection

from psycopg.rows import dict_row
from sqlalchemy import ARRAY, any_, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alerts import AlertRule
from evaluator.definitions import AlertDefinition
from runtime.turns import Slices
from store.alerts.rows import definition_of
from store.postgres.database import DriverConnection
from store.tables.alerts import alert
from store.tables.base import Identifier

DECODED_AT_ONCE = 50  # rows that the driver decodes without a pause

# The columns by name: a prepared `SELECT *` fails once a migration has added one.
_COLUMNS = ", ".join(column.name for column in alert.c)
_WIDE = f"""
SELECT {_COLUMNS} FROM alert WHERE organization_id = %s AND customer_id IS NULL AND state = 'ACTIVE'
"""
_OF_CUSTOMERS = f"""
SELECT {_COLUMNS} FROM alert WHERE organization_id = %s AND customer_id = ANY(%s) AND state = 'ACTIVE'
"""
_WITH_IDS = f"SELECT {_COLUMNS} FROM alert WHERE organization_id = %s AND alert_id = ANY(%s) AND state = 'ACTIVE'"


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


async def wide_rules(connection: DriverConnection, organization_id: int) -> list[AlertRule]:
    """The rules of all active alerts that name no customer."""
    return await _rules(connection, _WIDE, organization_id)


async def rules_of_customers(
    connection: DriverConnection, organization_id: int, customer_ids: Collection[str]
) -> dict[str, list[AlertRule]]:
    """The rules of the active alerts that name these customers, by customer id, without customers that have none."""
    found: dict[str, list[AlertRule]] = {}
    for rule in await _rules(connection, _OF_CUSTOMERS, organization_id, list(customer_ids)):
        found.setdefault(rule.scope.customer_id or "", []).append(rule)
    return found


async def rules_with_ids(
    connection: DriverConnection, organization_id: int, alert_ids: Collection[str]
) -> dict[str, AlertRule]:
    """The rules of those of the alerts that are active, by id."""
    found = await _rules(connection, _WITH_IDS, organization_id, list(alert_ids))
    return {rule.alert_id: rule for rule in found}


async def _rules(
    connection: DriverConnection, query: str, organization_id: int, *parameters: list[str]
) -> list[AlertRule]:
    found, slices = list[AlertRule](), Slices(organization_id)
    # SQLAlchemy would decode all rows without a pause. With very many alerts that would block the event loop.
    async with connection.cursor(row_factory=dict_row) as cursor:
        # Planned anew: a plan that was made while the table was small reads all of it, and is kept while it grows.
        await cursor.execute(query.encode(), (organization_id, *parameters), prepare=False)
        while rows := await cursor.fetchmany(DECODED_AT_ONCE):
            await slices.begin()
            for row in rows:
                found.append(definition_of(row).to_rule())
                await slices.pause()
    return found
