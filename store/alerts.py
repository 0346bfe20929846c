"""Alert definitions: the statements behind create, get, list and archive, and what the rules cache reads."""

from sqlalchemy import RowMapping, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.definitions import (
    AlertDefinition,
    DefinitionState,
    condition_from_json,
    thresholds_from_json,
)
from store.tables.alerts import alert


async def changed_since(
    connection: AsyncConnection, organization_id: int, epoch: int
) -> list[AlertDefinition]:
    """The alerts of every state whose last change is younger than `epoch`; epoch 0: all of them."""
    rows = await connection.execute(
        select(alert).where(alert.c.organization_id == organization_id, alert.c.changed_epoch > epoch)
    )
    return [definition_of(row) for row in rows.mappings()]


def definition_of(row: RowMapping) -> AlertDefinition:
    """The definition in a row with all columns of the table."""
    return AlertDefinition(
        alert_id=row["alert_id"],
        name=row["name"],
        state=DefinitionState(row["state"]),
        scope=Scope(ScopeKind(row["scope"]), row["plan_id"], row["customer_id"], row["subscription_id"]),
        condition=condition_from_json(ConditionType(row["condition_type"]), row["condition"]),
        thresholds=thresholds_from_json(row["thresholds"]),
        uniqueness_key=row["uniqueness_key"],
        uniqueness_key_held=row["uniqueness_key_held"],
        natural_key=row["natural_key"],
        evaluate_on_create=row["evaluate_on_create"],
        version=row["version"],
        changed_epoch=row["changed_epoch"],
        watching_epoch=row["watching_epoch"],
        watching_time=row["watching_time"],
        visit_after=row["visit_after"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        archive_time=row["archive_time"],
    )
