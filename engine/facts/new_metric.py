"""A new metric: alerts that were created before it are evaluated on the stored raw events that count in it."""

from evaluator.balances import Unit
from store.alerts import alerts, backfills
from store.postgres.database import Connection


async def begin_backfills(connection: Connection, organization_id: int, metric_id: str) -> None:
    """Begins backfills of the alerts on usage of a metric, in the transaction that creates it.

    Wake the backfills after its commit.
    """
    active = await alerts.active_of_unit(connection, organization_id, Unit(metric_id=metric_id))
    rules = [rule for definition in active if (rule := definition.active_rule()) is not None]
    on_usage = [rule.alert_id for rule in rules if not rule.measure.of_facts]
    if on_usage:
        await backfills.begin(connection, organization_id, on_usage)
