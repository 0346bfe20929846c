"""The notification that a caller disabled an alert, as a whole or for one customer or subscription."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import AlertDefinition
from evaluator.exclusions import Excluded
from evaluator.notifications import RequestedDisabling
from runtime.tracing.current import current_trace
from store.notifications.writing import write_notifications
from store.postgres.database import driver

NO_CUSTOMER = ""  # the customer_id of a notification about an alert as a whole; the id of a customer is never empty


async def notify(
    connection: AsyncConnection,
    organization_id: int,
    definitions: Sequence[AlertDefinition],
    epoch: int,
    now: datetime,
    excluded: Excluded | None = None,
) -> None:
    """Stores a notification for each alert, in the transaction that disables the alerts.

    epoch: the one that this transaction begins. excluded: the customer or subscription for which the alerts are
    disabled; None: they are disabled as a whole.
    """
    notices = [
        RequestedDisabling(
            organization=str(organization_id),
            rule=definition.to_rule(),
            customer_id=NO_CUSTOMER if excluded is None else excluded.customer_id,
            subscription_id=None if excluded is None else excluded.subscription_id,
            epoch=epoch,
            request_time=now,
        )
        for definition in definitions
    ]
    if notices:
        trace = current_trace()
        traces = {} if trace is None else {one.notification_id: trace.stored for one in notices}
        await write_notifications(await driver(connection), organization_id, notices, now, traces)
