"""Meters: the counters of enforced limits."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from uuid import UUID

from evaluator.amounts import ZERO
from evaluator.balances import Unit
from evaluator.gauges import Group
from evaluator.ids import digest_of
from evaluator.limit_windows import LimitWindow, minute_of
from evaluator.periods import Period


@dataclass(frozen=True)
class Meter:
    """What is counted: usage in a unit, of a customer or its subscription, with a group's values, in a window.

    It does not name a limit, so several limits one after the other have the same meter. customer_id: the holder of
    the limit; its meter counts the usage of its descendants, too. span: None where the window is rolling.
    """

    customer_id: str
    subscription_id: str | None
    unit: Unit
    group: Group
    window: LimitWindow
    span: Period | None

    @cached_property
    def meter_id(self) -> UUID:
        """A digest of the identity without the organization; the same on every replica."""
        span = self.span
        text = json.dumps(
            [
                self.customer_id,
                self.subscription_id,
                self.unit.key,
                self.group,
                self.window.key,
                None if span is None else [span.start.isoformat(), span.end.isoformat()],
            ],
            ensure_ascii=True,
        )
        return UUID(bytes=digest_of(text))

    @cached_property
    def key(self) -> str:
        """The `meter_id` in 32 hexadecimal digits."""
        return self.meter_id.hex


@dataclass(slots=True)
class MeterState:
    """What a meter shows. counted: of recorded usage. held: by open reservations."""

    counted: Decimal = ZERO
    held: Decimal = ZERO

    def remaining(self, limit: Decimal) -> Decimal:
        """What a limit leaves; below 0 where more is counted and held. Must run under `exact_arithmetic`."""
        return limit - self.counted - self.held


@dataclass(eq=False, slots=True)
class MeterCell(MeterState):
    """A meter in a transaction that holds the wallet of its customer: as it was read, and then moved.

    meter: what it counts; None where only a reservation names it. counted_from: the first minute that `counted` of a
    rolling window includes. refused_time: when a refusal was last reported. rules_epoch: of the organization, up to
    which it has missed nothing. is_new: it is not stored yet. changed: whether it has to be written. minutes: what
    was counted in each minute of a rolling window since it was read. is_counted_here: a transaction that cannot write
    has counted it from the stored events, so that `minutes` are all of its window, and no others are stored.
    """

    customer_id: str = ""
    key: str = ""
    meter: Meter | None = None
    counted_from: datetime | None = None
    refused_time: datetime | None = None
    rules_epoch: int = -1
    is_new: bool = False
    changed: bool = False
    minutes: dict[datetime, Decimal] = field(default_factory=dict)
    is_counted_here: bool = False

    def count(self, amount: Decimal, time: datetime) -> None:
        """Counts usage that happened at `time`. Must run under `exact_arithmetic`.

        Of a rolling window, usage that is older than the window has left it already.
        """
        self.changed = True
        if self.counted_from is not None:
            minute = minute_of(time)
            if minute < self.counted_from:
                return
            self.minutes[minute] = self.minutes.get(minute, ZERO) + amount
        self.counted += amount

    def hold(self, amount: Decimal) -> None:
        """Holds an amount, or gives a negative one back. Must run under `exact_arithmetic`."""
        self.changed = True
        self.held += amount
