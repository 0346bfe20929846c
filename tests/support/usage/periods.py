"""Billing periods in short form, the periods of an answer's gauges, and a clock that moves with its upkeep."""

from datetime import UTC, datetime, timedelta

from engine.upkeep import Upkeep
from generated.tidemark.v1 import (
    billing_period_pb2,
    gauge_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.postgres.database import Database
from tests.support.usage.caller import Caller, Outcome

DAY, MONTH, YEAR = billing_period_pb2.CADENCE_DAY, billing_period_pb2.CADENCE_MONTH, billing_period_pb2.CADENCE_YEAR


def utc(month: int, day: int, hour: int = 0, minute: int = 0, *, year: int = 2026) -> datetime:
    """A time in UTC."""
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


def cycle(
    anchor: datetime, cadence: billing_period_pb2.Cadence.ValueType = MONTH, time_zone: str = ""
) -> billing_period_pb2.BillingCycle:
    """A billing cycle, by default of months in UTC."""
    return billing_period_pb2.BillingCycle(anchor_time=to_timestamp(anchor), cadence=cadence, time_zone=time_zone)


def by_period(answer: Outcome) -> dict[tuple[datetime, datetime], str]:
    """The gauges of an answer by their periods."""
    return {period_of(gauge): gauge.value for gauge in answer.gauges}


def period_of(gauge: gauge_pb2.Gauge) -> tuple[datetime, datetime]:
    """The start and the end of a gauge's billing period."""
    period = gauge.billing_period
    return period.start_time.ToDatetime(UTC), period.end_time.ToDatetime(UTC)


async def move_to(caller: Caller, clock: ManualClock, time: datetime) -> None:
    """Sets the clock, and runs the upkeep that a server would have run until then."""
    clock.set(time)
    database = Database(caller.database_url, pool_size=1)
    await Upkeep(database, clock, timedelta(days=400), timedelta(days=400)).run_once()
    await database.close()


MARCH, APRIL = (utc(3, 1), utc(4, 1)), (utc(4, 1), utc(5, 1))
