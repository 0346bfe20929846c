"""Billing cycles as the columns of customers and subscriptions."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import RowMapping

from evaluator.periods import BillingCycle, Cadence

CYCLE_COLUMNS = ("anchor_time", "cadence", "interval_count", "time_zone")


def cycle_of(row: Mapping[str, Any] | RowMapping, prefix: str = "") -> BillingCycle | None:
    """The cycle in the columns whose names begin with `prefix`; None when they are empty."""
    anchor, cadence, interval_count, time_zone = (row[prefix + name] for name in CYCLE_COLUMNS)
    return None if anchor is None else BillingCycle(anchor, Cadence(cadence), interval_count, time_zone)


def cycle_columns(cycle: BillingCycle | None) -> dict[str, Any]:
    """The values of the columns for a cycle, or for none."""
    if cycle is None:
        return dict.fromkeys(CYCLE_COLUMNS)
    values = (cycle.anchor, cycle.cadence.value, cycle.interval_count, cycle.time_zone)
    return dict(zip(CYCLE_COLUMNS, values, strict=True))
