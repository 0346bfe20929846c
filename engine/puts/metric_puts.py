"""Puts of metrics: what counts in a metric never changes, so only a new metric takes the organization's lock."""

from engine.changes.groups import ChangeGroups
from engine.changes.open_change import OpenChange
from engine.puts import new_metrics
from runtime.clock import Clock
from store.accounts import metrics
from store.accounts.metrics import MetricFact, StoredMetric
from store.accounts.puts import Put, differs
from store.alerts.backfills_of_metrics import PartSize
from store.audit import writing
from store.audit.entries import Describe
from store.postgres.database import driver


class MetricPuts:
    """Puts metrics."""

    def __init__(self, clock: Clock, groups: ChangeGroups, first_part: PartSize) -> None:
        """first_part: of the alerts on a new metric, whose backfills begin in the transaction that creates it."""
        self._first_part = first_part
        self._clock = clock
        self._groups = groups

    async def put(
        self, organization_id: int, fact: MetricFact, describe: Describe[StoredMetric], *, validate_only: bool
    ) -> Put[StoredMetric]:
        """Stores a fact, unless a newer one is stored. `changed`: the metric is new; wake `NewMetrics` then.

        describe: makes the entry of the audit log, if the put changes anything. Raises MetricFixed and
        DatabaseUnavailable. With validate_only nothing is kept.
        """

        async def create(change: OpenChange) -> StoredMetric | None:
            created = await metrics.create(change.connection, organization_id, fact, change.epoch, change.now)
            if created is not None and fact.event_name is not None:
                await new_metrics.begin_backfills(change, fact.metric_id, self._first_part)
            if created is not None:
                change.trail.append(describe(None, created))
            return created

        while (put := await self._put_existing(organization_id, fact, describe, keep=not validate_only)) is None:
            created = await self._groups.run(organization_id, create, keep=not validate_only)
            if created is not None:  # else another put, or usage, has created the metric meanwhile
                return Put(created, changed=True)
        return put

    async def _put_existing(
        self, organization_id: int, fact: MetricFact, describe: Describe[StoredMetric], *, keep: bool
    ) -> Put[StoredMetric] | None:
        """Puts a fact about a metric that exists; returns None if it does not exist."""
        async with self._groups.transaction(organization_id) as connection:
            raw = await driver(connection)
            async with raw.transaction(force_rollback=not keep):
                now = self._clock.now()
                put = await metrics.put_existing(connection, organization_id, fact, now)
                if put is not None and put.previous is not None and differs(put.previous, put.stored):
                    await writing.write(raw, organization_id, [describe(put.previous, put.stored)], now)
                return put
