"""The examples of each type of alert are what an alert of this type finds."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from evaluator.alerts import ConditionType
from evaluator.balances import BalanceReading
from evaluator.thresholds import Direction, TransitionKind
from server.mapping.balance_conditions import BALANCE_TYPES
from server.mapping.conditions import CONDITION_TYPES
from tests.support.schemas import check_body
from webhooks.example_conditions import condition_example
from webhooks.example_events import example_body

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)


@pytest.mark.parametrize("kind", TransitionKind)
@pytest.mark.parametrize("condition", ConditionType)
def test_the_values_lie_on_both_sides_of_the_threshold(condition: ConditionType, kind: TransitionKind) -> None:
    example = condition_example(condition, kind, NOW)
    level = example.threshold.value
    assert level is not None

    def reached(value: Decimal) -> bool:
        if condition.direction is Direction.FALLING:
            return value <= level
        return value > level if example.threshold.exclusive else value >= level

    assert (reached(example.previous), reached(example.value)) == (
        (False, True) if kind is TransitionKind.REACHED else (True, False)
    )


def body(condition: ConditionType, event_type: str = "alert.reached") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(example_body("tst_" + "a" * 26, event_type, "whe_1", NOW, condition))
    check_body(found)
    return found


@pytest.mark.parametrize("condition", ConditionType)
def test_what_is_measured_is_what_the_type_measures(condition: ConditionType) -> None:
    measure = condition_example(condition, TransitionKind.REACHED, NOW).gauge.measure
    assert measure.per_subscription is condition.per_subscription
    assert (measure.balances is not None) is (condition in BALANCE_TYPES)
    assert (measure.invoices is not None) is ("INVOICE" in condition.name)
    assert measure.days_in_plan is condition.name.endswith("DAYS_IN_PLAN_REACHED")
    assert (measure.metric_id is not None) is condition.name.startswith("USAGE")
    if measure.balances is not None:
        days = measure.balances.reading is BalanceReading.DAYS_LEFT
        assert days is ("_DAYS_" in condition.name)
        kinds = {kind.name.removesuffix("_ALLOTMENT") for kind in measure.balances.kinds}
        for part, kind in (("COMMIT", "COMMIT"), ("CONTRACT_CREDIT", "CONTRACT_CREDIT"), ("SEAT", "SEAT_CREDIT")):
            assert (kind in kinds) is (part in condition.name)


def test_evidence_names_the_event_only_where_an_event_moves_the_gauge() -> None:
    used = body(ConditionType.USAGE_EXCEEDED)["data"]
    assert used["transitions"][0]["event_id"] == "test-event"
    days = body(ConditionType.LOW_REMAINING_DAYS_IN_PLAN_REACHED)["data"]["transitions"][0]
    assert "event_id" not in days
    assert "event_time" in days
    invoice = body(ConditionType.INVOICE_TOTAL_REACHED)["data"]["transitions"][0]
    assert "event_time" not in invoice


def test_every_type_of_the_contract_has_an_example() -> None:
    assert {body(condition)["data"]["condition"] for condition in CONDITION_TYPES} == {
        condition.value for condition in ConditionType
    }
