"""Cells: the meters that a transaction needs are read; those that may have missed usage are counted anew.

A meter is stored when it first moves. So one that is missing has counted nothing, if all usage of its window was
stored under the limits of now: a new window needs no recount.
"""

from collections.abc import Container
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from engine.meters.counted_meters import Counted, CountedMeters
from evaluator.aggregation import Aggregation
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.enforced_limits import ALWAYS, Since
from evaluator.enforcement.meters import Meter, MeterCell
from evaluator.enforcement.targets import Target
from evaluator.limit_windows import MINUTE, minute_of
from evaluator.routing import FUTURE_TOLERANCE, Router
from store.citus.shard_tables import ShardsOf
from store.enforcement import held_recounts, meter_recounts, meters, rolling_minutes
from store.enforcement.meter_recounts import MeterRecount
from store.postgres.database import DriverConnection

# After now: the end of the events that a rolling window counts. Events are a little ahead of the clock at most.
_AHEAD = FUTURE_TOLERANCE + timedelta(days=1)
# How long before a window the limits must have stood for it to begin at zero: no event of it was stored before, also
# where the clocks of servers differ by up to two hours.
_STOOD_BEFORE = FUTURE_TOLERANCE + timedelta(hours=2)
# After its window a meter that counted something may be deleted; this is shorter (`engine.upkeep`).
_SURELY_KEPT = timedelta(days=30)


@dataclass(slots=True)
class _Wanted:
    """A meter that is needed. meter: None where only a reservation names it. since: as of `Target`."""

    customer_id: str
    meter: Meter | None
    since: Since


@dataclass(eq=False)
class Cells:
    """The meters of one transaction, by `MeterCell.key`.

    now: the transaction's. new_customers: those that it has registered, or would register; they have no events yet.
    holds_more: whether open reservations hold a part of meters that they did not hold when they were read. lacking:
    the keys of meters that could not be counted any more, see `load_reading`. shards: of the meters' customers, if
    the transaction holds them at a node of a cluster.
    """

    organization_id: int
    router: Router
    now: datetime
    new_customers: Container[str] = ()
    by_key: dict[str, MeterCell] = field(default_factory=dict)
    holds_more: bool = False
    shards: ShardsOf | None = None
    lacking: set[str] = field(default_factory=set)
    _wanted: dict[str, _Wanted] = field(default_factory=dict)
    _sent: list[tuple[str, str]] = field(default_factory=list)
    _read: meters.Read = ()

    def want(self, target: Target, time: datetime) -> None:
        """Needs the meter that usage at `time` moves."""
        meter = target.meter_at(time)
        wanted = self._wanted.get(meter.key)
        if wanted is None:
            self._wanted[meter.key] = _Wanted(meter.customer_id, meter, target.since)
        else:
            wanted.meter = meter
            wanted.since = wanted.since.latest(target.since)

    def want_held(self, customer_id: str, key: str) -> None:
        """Needs a meter that a reservation holds a part of."""
        if key not in self._wanted:
            self._wanted[key] = _Wanted(customer_id, None, ALWAYS)

    @property
    def customer_ids(self) -> set[str]:
        """The customers of the meters, whose wallets the transaction must hold."""
        return {one.customer_id for one in self._wanted.values()}

    async def send_read(self, connection: DriverConnection) -> None:
        """Sends the statement that reads what is needed; after the one that locks the wallets. `load` must follow."""
        self._sent = [(one.customer_id, key) for key, one in self._wanted.items() if key not in self.by_key]
        self._read = ()
        if self._sent:
            self._read = await meters.send_read(connection, self.organization_id, self._sent, self.shards)

    async def load(self, connection: DriverConnection) -> None:
        """Makes the cells of what was read; counts anew what is not known without a gap.

        The transaction holds the wallets.
        """
        unknown = await self._load(connection, locked=True)
        if unknown:
            await self._count(connection, unknown, locked=True)

    async def load_reading(
        self, connection: DriverConnection, counted: CountedMeters, *, ended: bool = False
    ) -> bool:
        """Makes the cells of what was read, in a transaction that can only read, and sees one snapshot.

        What is not known without a gap is taken from `counted`, or counted and kept there. ended: the transaction has
        ended, so that nothing more can be read in it; returns whether nothing had to be.
        """
        unknown = await self._load(connection, locked=False)
        if not unknown:
            return True
        if ended:
            self.lacking = {cell.key for cell, _ in unknown}
            return False
        missing = []
        for cell, meter in unknown:
            cell.is_counted_here, minutes = True, meter.window.minutes
            found = counted.get(cell.key, self._wanted[cell.key].since.epoch, self.now)
            if found is None:
                missing.append((cell, meter))
                continue
            cell.counted, cell.minutes = found.counted, dict(found.minutes)
            if minutes is not None:
                cell.counted_from = first_minute(self.now, minutes)
                cell.minutes = {one: amount for one, amount in cell.minutes.items() if one >= cell.counted_from}
                with exact_arithmetic():
                    cell.counted = sum(cell.minutes.values(), ZERO)
        if missing:
            await self._count(connection, missing, locked=False)
            for cell, _ in missing:
                counted.add(cell.key, Counted(cell.counted, cell.minutes, self.router.epoch, self.now))
        # What reservations hold ends without a trace on a meter that is not stored, so it is read each time.
        wanted = [self._recount_of(meter) for _, meter in unknown]
        more = await held_recounts.would_hold(connection, self.organization_id, wanted)
        with exact_arithmetic():
            for (cell, _), amount in zip(unknown, more, strict=True):
                cell.held += amount
        return True

    async def _load(self, connection: DriverConnection, *, locked: bool) -> list[tuple[MeterCell, Meter]]:
        """Makes cells, without what has left rolling windows; returns those that are not known without a gap."""
        unknown: list[tuple[MeterCell, Meter]] = []
        rolled: list[tuple[MeterCell, datetime]] = []
        stored = await meters.stored(self._read, self._sent)
        epoch = self.router.epoch
        for customer_id, key in self._sent:
            wanted, cell = self._wanted[key], stored.get(key)
            if cell is None:
                cell = MeterCell(customer_id=customer_id, key=key, is_new=wanted.meter is not None)
            self.by_key[key] = cell
            meter = cell.meter = wanted.meter
            if meter is None:  # it may miss usage, and continues to
                continue
            known_until, cell.rules_epoch = cell.rules_epoch, epoch
            if cell.is_new and self._begins_at_zero(meter, wanted.since):
                if meter.window.minutes is not None:
                    cell.counted_from = first_minute(self.now, meter.window.minutes)
            elif known_until < wanted.since.epoch or cell.is_new:
                if locked or customer_id not in self.new_customers:
                    unknown.append((cell, meter))
            elif meter.window.minutes is not None and cell.counted_from is not None:
                start = first_minute(self.now, meter.window.minutes)
                if cell.counted_from < start:
                    rolled.append((cell, start))
        if rolled:
            left = await rolling_minutes.left(
                connection, self.organization_id, rolled, forget=locked, shards=self.shards
            )
            with exact_arithmetic():
                for cell, start in rolled:
                    cell.counted_from, cell.changed = start, True
                    if cell.key in left:
                        cell.counted -= left[cell.key]
        return unknown

    def changed(self) -> list[MeterCell]:
        """The cells that have to be written."""
        return [cell for cell in self.by_key.values() if cell.changed]

    def _begins_at_zero(self, meter: Meter, since: Since) -> bool:
        """Whether a meter that is not stored has counted nothing: all usage of its window would have moved it."""
        if meter.span is not None:
            start, kept = meter.span.start, meter.span.end > self.now - _SURELY_KEPT
        else:
            assert meter.window.minutes is not None
            start, kept = first_minute(self.now, meter.window.minutes), True
        return kept and start >= since.time + _STOOD_BEFORE

    async def _count(
        self, connection: DriverConnection, unknown: list[tuple[MeterCell, Meter]], *, locked: bool
    ) -> None:
        """Counts meters from the stored events.

        locked: they will be stored, and open reservations hold what they would hold now.
        """
        again = [one for one, meter in unknown if meter.window.is_rolling and not one.is_new]
        if locked and again:
            await rolling_minutes.clear(connection, self.organization_id, again)
        recounts = []
        for cell, meter in unknown:
            cell.changed = locked
            minutes = meter.window.minutes
            if minutes is not None:
                cell.counted_from = first_minute(self.now, minutes)
            if cell.customer_id not in self.new_customers:
                recounts.append((cell, self._recount_of(meter)))
        if not recounts:
            return
        wanted = [one for _, one in recounts]
        with exact_arithmetic():
            found = await meter_recounts.recount(connection, self.organization_id, wanted)
            for (cell, _), counted in zip(recounts, found, strict=True):
                cell.counted = counted.counted
                cell.minutes = dict(counted.minutes)
            if not locked:
                return
            added = await held_recounts.hold(connection, self.organization_id, wanted)
            for (cell, _), more in zip(recounts, added, strict=True):
                cell.held += more
                self.holds_more = self.holds_more or more != ZERO

    def _recount_of(self, meter: Meter) -> MeterRecount:
        unit, span = meter.unit, meter.span
        metric = None if unit.metric_id is None else self.router.metric(unit.metric_id)
        if span is not None:
            start, end = span.start, span.end
        else:
            assert meter.window.minutes is not None
            start, end = first_minute(self.now, meter.window.minutes), self.now + _AHEAD
        return MeterRecount(
            meter,
            Aggregation.SUM if metric is None else metric.aggregation,
            None if metric is None else metric.raw_events,
            start,
            end,
        )


def first_minute(now: datetime, minutes: int) -> datetime:
    """The first minute of a rolling window of so many minutes: the one in which `minutes` ago is.

    It counts as a whole, like the present one. Without it, more than the limit could be used within `minutes`.
    """
    return minute_of(now) - minutes * MINUTE
