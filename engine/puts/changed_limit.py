"""A changed limit of a plan: alerts with thresholds in percent of it get backfills.

Only limits of the billing period have such alerts.

The alerts are read before the change takes the lock of the organization, and under the lock only those that have
changed since. A changed limit of a customer notes the customer (`engine.puts.customer_evaluations`).
"""

from engine.changes.open_change import OpenChange
from evaluator.balances import Unit
from evaluator.limit_windows import BILLING_PERIOD
from store.alerts import backfills, compared_with_limits
from store.identity import organizations
from store.limits.limits import LimitSubject
from store.postgres.database import Connection

_NOTHING_READ = -1  # below every epoch


class LimitedAlerts:
    """The active alerts that may have a gauge that is compared with the limit of a plan."""

    def __init__(self) -> None:
        self._alert_ids: list[str] = []
        self._epoch = _NOTHING_READ

    async def read(self, connection: Connection, organization_id: int, subject: LimitSubject) -> None:
        """Reads the alerts, if the limit is a plan's."""
        if subject.plan_id is not None and subject.window == BILLING_PERIOD:
            self._epoch = await organizations.current_epoch(connection, organization_id)
            self._alert_ids = await _ids(connection, organization_id, subject, subject.plan_id)

    async def begin_backfills(self, change: OpenChange, subject: LimitSubject) -> None:
        """Begins backfills of the alerts, if the limit is a plan's; in the transaction that changes the limit."""
        if subject.plan_id is None or subject.window != BILLING_PERIOD:
            return
        connection, organization_id = change.connection, change.organization_id
        alert_ids = set(self._alert_ids)
        if change.epoch > self._epoch + 1:  # others may have changed since these were read
            since = self._epoch
            alert_ids.update(await _ids(connection, organization_id, subject, subject.plan_id, since=since))
        if alert_ids:
            await backfills.begin(connection, organization_id, sorted(alert_ids))


async def _ids(
    connection: Connection, organization_id: int, subject: LimitSubject, plan_id: str, *, since: int | None = None
) -> list[str]:
    unit, keys = Unit(subject.currency, subject.metric_id), tuple(key for key, _ in subject.groups)
    return await compared_with_limits.of_plan(connection, organization_id, plan_id, unit, keys, since=since)
