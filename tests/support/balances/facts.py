"""Facts of balances, as callers put them."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from evaluator.balances import BalanceKind
from store.balances.balances import BalanceFact, SegmentFact


def a_commit(amounts: Iterable[Decimal], start_time: datetime, as_of_time: datetime, **changes: Any) -> BalanceFact:
    """The commit `b1` of the customer `acme`, in US dollars, with segments from a time on. changes: other fields."""
    fields: dict[str, Any] = {
        "customer_id": "acme",
        "balance_id": "b1",
        "kind": BalanceKind.COMMIT,
        "currency": "USD",
        "metric_id": None,
        "priority": 0,
        "contract_id": None,
        "contract_custom_fields": {},
        "custom_fields": {},
        "credit_grant_type": None,
        "seat": None,
        "license_type": None,
        "draw_down": False,
        "allow_overage": False,
        "draw_down_metric_ids": (),
        "segments": tuple(SegmentFact(amount, start_time, None) for amount in amounts),
        "as_of_time": as_of_time,
    }
    return BalanceFact(**{**fields, **changes})
