"""Meters: the counters of enforced limits."""

import json
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from uuid import UUID

from evaluator.amounts import ZERO
from evaluator.balances import Unit
from evaluator.gauges import Group
from evaluator.ids import digest_of
from evaluator.limit_windows import LimitWindow
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


@dataclass(slots=True)
class MeterState:
    """What a meter shows. counted: of recorded usage. held: by open reservations."""

    counted: Decimal = ZERO
    held: Decimal = ZERO

    def remaining(self, limit: Decimal) -> Decimal:
        """What a limit leaves; below 0 where more is counted and held. Must run under `exact_arithmetic`."""
        return limit - self.counted - self.held
