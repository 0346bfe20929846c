"""Decisions as JSON, in which they are stored so that a repeated request gets the first answer."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from evaluator.amounts import exact_arithmetic, format_decimal
from evaluator.balances import Unit
from evaluator.enforced_limits import EnforcedLimit, Enforcement
from evaluator.enforcement.decisions import CreditState, Decision, LimitState, Outcome, Reason
from evaluator.enforcement.meters import Meter
from evaluator.limit_windows import LimitWindow, WindowKind
from evaluator.periods import Period


def decision_json(decision: Decision) -> dict[str, Any]:
    """A decision as JSON. Parts that are not set are left out."""
    found: dict[str, Any] = {"outcome": decision.outcome.value, "quantity": format_decimal(decision.granted_quantity)}
    if decision.granted_cost is not None:
        found["cost"] = format_decimal(decision.granted_cost)
    if decision.reason is not None:
        found["reason"] = decision.reason.value
    if decision.limit is not None:
        found["limit"] = _limit_json(decision.limit)
    if (credit := decision.credit) is not None:
        available = None if credit.available is None else format_decimal(credit.available)
        found["credit"] = [credit.unit.key, available]
    if decision.over:
        found["over"] = [_limit_json(one) for one in decision.over]
    if decision.retry_after is not None:
        found["retry_after"] = decision.retry_after // timedelta(microseconds=1)
    return found


def decision_from(stored: Mapping[str, Any]) -> Decision:
    """The decision of `decision_json`."""
    cost, reason, limit, credit = (stored.get(name) for name in ("cost", "reason", "limit", "credit"))
    retry_after = stored.get("retry_after")
    return Decision(
        Outcome(stored["outcome"]),
        Decimal(stored["quantity"]),
        None if cost is None else Decimal(cost),
        None if reason is None else Reason(reason),
        None if limit is None else _limit_from(limit),
        None if credit is None else _credit_from(*credit),
        tuple(_limit_from(one) for one in stored.get("over", ())),
        None if retry_after is None else timedelta(microseconds=retry_after),
    )


def _credit_from(unit: str, available: str | None) -> CreditState:
    return CreditState(Unit.from_key(unit), None if available is None else Decimal(available))


def _limit_json(state: LimitState) -> dict[str, Any]:
    limit, meter = state.limit, state.meter
    return {
        "limit": limit.limit_id,
        "unit": limit.unit.key,
        "groups": limit.groups,
        "window": [limit.window.kind.value, limit.window.minutes],
        "amount": format_decimal(limit.amount),
        "enforcement": limit.enforcement.value,
        "epoch": limit.changed_epoch,
        "customer": meter.customer_id,
        "subscription": meter.subscription_id,
        "group": meter.group,
        "counted": format_decimal(state.counted),
        "held": format_decimal(state.held),
        "start": state.span.start.isoformat(),
        "end": state.span.end.isoformat(),
        "reset": None if state.reset_time is None else state.reset_time.isoformat(),
    }


def _limit_from(stored: Mapping[str, Any]) -> LimitState:
    kind, minutes = stored["window"]
    unit, window = Unit.from_key(stored["unit"]), LimitWindow(WindowKind(kind), minutes)
    span = Period(datetime.fromisoformat(stored["start"]), datetime.fromisoformat(stored["end"]))
    limit = EnforcedLimit(
        limit_id=stored["limit"],
        unit=unit,
        groups=tuple((key, value) for key, value in stored["groups"]),
        window=window,
        amount=Decimal(stored["amount"]),
        enforcement=Enforcement(stored["enforcement"]),
        changed_epoch=stored["epoch"],
    )
    meter = Meter(
        stored["customer"],
        stored["subscription"],
        unit,
        tuple((key, value) for key, value in stored["group"]),
        window,
        None if window.is_rolling else span,
    )
    counted, held = Decimal(stored["counted"]), Decimal(stored["held"])
    with exact_arithmetic():
        remaining = limit.amount - counted - held
    reset = None if stored["reset"] is None else datetime.fromisoformat(stored["reset"])
    return LimitState(limit, meter, counted, held, remaining, span, reset)
