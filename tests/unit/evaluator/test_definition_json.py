"""The stored JSON of definitions: documents of every condition type are read and written byte for byte the same."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from evaluator.alerts import ConditionType, GroupSelector, Scope, ScopeKind
from evaluator.balances import BalanceKind, BalanceReading, BalanceSelection, FieldEntity, FieldFilter, Specifier
from evaluator.definition_json import (
    condition_from_json,
    condition_json,
    thresholds_from_json,
    thresholds_json,
    version_from_json,
    version_json,
)
from evaluator.definitions import AlertDefinition, Condition, DefinitionState, natural_key
from evaluator.gauges import InvoiceSelection, Measure
from evaluator.overrides import Override
from evaluator.prices import FilterOperator, PriceField, PriceFilter
from evaluator.thresholds import Severity, Threshold, TransitionKind

# Documents of real databases. They must never be edited: a stored definition must stay readable, and
# the keys of measures identify stored gauges.
STORED: dict[str, Any] = json.loads((Path(__file__).parent / "stored_definitions.json").read_text())

COMMIT, CREDIT, GRANT = BalanceKind.COMMIT, BalanceKind.CONTRACT_CREDIT, BalanceKind.CREDIT_GRANT
REMAINING, PERCENT = BalanceReading.REMAINING, BalanceReading.REMAINING_PERCENT

TEAM = FieldFilter(FieldEntity.COMMIT, "team", "data")
REGION = FieldFilter(FieldEntity.CONTRACT, "region")
TIER = FieldFilter(FieldEntity.CONTRACT_CREDIT_OR_COMMIT, "tier", "gold")

CONDITIONS = [
    Condition(
        ConditionType.SPEND_THRESHOLD_REACHED,
        currency="EUR",
        groups=(GroupSelector("zone"), GroupSelector("model", 'größe "L"')),
    ),
    Condition(
        ConditionType.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED,
        currency="USD",
        invoices=InvoiceSelection(monthly=True),
    ),
    Condition(ConditionType.USAGE_THRESHOLD_REACHED, metric_id="api/calls", groups=(GroupSelector("zone", ""),)),
    Condition(
        ConditionType.LOW_REMAINING_DAYS_FOR_COMMIT_SEGMENT_REACHED,
        balances=BalanceSelection((COMMIT,), BalanceReading.DAYS_LEFT, filters=(REGION, TEAM)),
    ),
    Condition(
        ConditionType.LOW_REMAINING_COMMIT_BALANCE_REACHED,
        currency="USD",
        balances=BalanceSelection((COMMIT,), REMAINING),
    ),
    Condition(
        ConditionType.LOW_REMAINING_COMMIT_PERCENTAGE_REACHED,
        currency="USD",
        balances=BalanceSelection((COMMIT,), PERCENT, filters=(TEAM,)),
    ),
    Condition(
        ConditionType.LOW_REMAINING_DAYS_FOR_CONTRACT_CREDIT_SEGMENT_REACHED,
        balances=BalanceSelection((CREDIT,), BalanceReading.DAYS_LEFT),
    ),
    Condition(
        ConditionType.LOW_REMAINING_CONTRACT_CREDIT_BALANCE_REACHED,
        metric_id="seats",
        balances=BalanceSelection((CREDIT,), REMAINING),
    ),
    Condition(
        ConditionType.LOW_REMAINING_CONTRACT_CREDIT_PERCENTAGE_REACHED,
        currency="USD",
        balances=BalanceSelection((CREDIT,), PERCENT),
    ),
    Condition(
        ConditionType.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_BALANCE_REACHED,
        currency="USD",
        balances=BalanceSelection(
            (COMMIT, CREDIT),
            REMAINING,
            specifiers=(Specifier((REGION, TIER), ((TEAM,), (TIER, REGION))), Specifier((), ((TEAM,),))),
        ),
    ),
    Condition(
        ConditionType.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_PERCENTAGE_REACHED,
        currency="USD",
        balances=BalanceSelection((COMMIT, CREDIT), PERCENT, specifiers=(Specifier((TIER,)),)),
    ),
    Condition(
        ConditionType.INVOICE_TOTAL_REACHED,
        currency="USD",
        invoices=InvoiceSelection(types=("final", "usage"), contract_fields=(("region", "eu"), ("team", "data"))),
    ),
    Condition(
        ConditionType.LOW_REMAINING_SEAT_BALANCE_REACHED,
        currency="USD",
        groups=(GroupSelector("seat_id", "ann"),),
        balances=BalanceSelection((BalanceKind.SEAT_CREDIT,), REMAINING, seat_key="seat_id"),
    ),
    Condition(
        ConditionType.LOW_CREDIT_BALANCE_REACHED,
        currency="USD",
        balances=BalanceSelection((GRANT,), REMAINING, grant_types=("paid", "trial")),
    ),
    Condition(
        ConditionType.LOW_REMAINING_CREDIT_PERCENTAGE_REACHED,
        currency="USD",
        balances=BalanceSelection((GRANT,), PERCENT),
    ),
    Condition(ConditionType.LOW_REMAINING_DAYS_IN_PLAN_REACHED),
    Condition(ConditionType.USAGE_EXCEEDED, metric_id="calls"),
    Condition(
        ConditionType.COST_EXCEEDED,
        currency="USD",
        groups=(GroupSelector("zone"), GroupSelector("model")),
        overrides=(
            Override((("zone", "eu"), ("model", "large")), (Threshold(Decimal("5.50"), code="eu"),)),
            Override((("zone", "test"),), ()),
        ),
    ),
    Condition(
        ConditionType.SPEND_EXCEEDED,
        currency="USD",
        prices=(
            PriceFilter(PriceField.ITEM_ID, FilterOperator.EXCLUDES, ("storage",)),
            PriceFilter(PriceField.PRICE_ID, FilterOperator.INCLUDES, ("p1", "p2")),
        ),
    ),
    *(
        Condition(kind, currency="USD", balances=BalanceSelection((GRANT,), REMAINING))
        for kind in (
            ConditionType.CREDIT_BALANCE_DEPLETED,
            ConditionType.CREDIT_BALANCE_DROPPED,
            ConditionType.CREDIT_BALANCE_RECOVERED,
        )
    ),
    Condition(
        ConditionType.LICENSE_BALANCE_THRESHOLD_REACHED,
        balances=BalanceSelection(
            (BalanceKind.LICENSE_ALLOTMENT,), BalanceReading.USED_PERCENT, license_type="builder"
        ),
    ),
]

# Conditions with fields that the stored documents do not have, each with its JSON and the key of its measure.
LATER: list[tuple[Condition, dict[str, Any], str]] = [
    (
        Condition(
            ConditionType.LOW_REMAINING_COMMIT_BALANCE_REACHED,
            balances=BalanceSelection((COMMIT,), REMAINING, any_metric=True),
        ),
        {"balances": {"kinds": ["COMMIT"], "reading": "REMAINING", "any_metric": True}},
        'balances/[null, {"kinds": ["COMMIT"], "reading": "REMAINING", "any_metric": true}]',
    ),
    (
        Condition(
            ConditionType.COST_EXCEEDED,
            currency="USD",
            groups=(GroupSelector("zone"),),
            prices=(PriceFilter(PriceField.PRICE_ID, FilterOperator.INCLUDES, ("p1",)),),
        ),
        {"currency": "USD", "groups": [{"key": "zone"}], "prices": [["PRICE_ID", "INCLUDES", ["p1"]]]},
        'prices/["USD", [["PRICE_ID", "INCLUDES", ["p1"]]]]',
    ),
    (
        Condition(
            ConditionType.SPEND_THRESHOLD_REACHED,
            currency="USD",
            contract_fields=(("region", "eu"), ("tier", "1")),
        ),
        {"currency": "USD", "contract_fields": [["region", "eu"], ["tier", "1"]]},
        'contracts/["USD", [["region", "eu"], ["tier", "1"]]]',
    ),
]

THRESHOLDS = (
    Threshold(Decimal("100.50")),
    Threshold(
        Decimal(200),
        code="größer",
        severity=Severity.CRITICAL,
        resolve_value=Decimal("150.000000000000000001"),
        notify_on=frozenset(TransitionKind),
    ),
    Threshold(
        percent_of_limit=Decimal("80.5"), resolve_percent=Decimal(70), notify_on=frozenset({TransitionKind.RESOLVED})
    ),
    Threshold(recurring_step=Decimal("0.25"), severity=Severity.INFO),
    Threshold(Decimal("-0"), severity=Severity.WARNING),
)

NOW = datetime(2026, 3, 15, tzinfo=UTC)
SUBSCRIPTION = Scope(ScopeKind.SUBSCRIPTION, customer_id="acme", subscription_id="pro")
CUSTOMER = Scope(ScopeKind.CUSTOMER, customer_id="acme")

each_condition = pytest.mark.parametrize(
    ("condition", "stored"),
    list(zip(CONDITIONS, STORED["conditions"], strict=True)),
    ids=[condition.condition_type.value for condition in CONDITIONS],
)


def test_every_condition_type_has_a_stored_document() -> None:
    assert {condition.condition_type for condition in CONDITIONS} == set(ConditionType)


@each_condition
def test_a_condition_is_written_as_the_stored_document(condition: Condition, stored: dict[str, Any]) -> None:
    assert condition.condition_type.value == stored["condition_type"]
    assert json.dumps(condition_json(condition)) == json.dumps(stored["condition"])


@each_condition
def test_a_condition_is_read_from_the_stored_document(condition: Condition, stored: dict[str, Any]) -> None:
    assert condition_from_json(condition.condition_type, stored["condition"]) == condition


@each_condition
def test_a_measure_has_the_stored_key_and_is_read_from_it(condition: Condition, stored: dict[str, Any]) -> None:
    measure = condition.measure
    assert measure.key == stored["measure"]
    assert Measure.from_key(stored["measure"], measure.per_subscription) == measure


@each_condition
def test_an_alert_has_the_stored_natural_key(condition: Condition, stored: dict[str, Any]) -> None:
    scope = SUBSCRIPTION if condition.condition_type.per_subscription else CUSTOMER
    assert natural_key(scope, condition) == stored["natural_key"]


@pytest.mark.parametrize(("condition", "stored", "key"), LATER)
def test_a_condition_with_later_fields_is_written_and_read(
    condition: Condition, stored: dict[str, Any], key: str
) -> None:
    assert json.dumps(condition_json(condition)) == json.dumps(stored)
    assert condition_from_json(condition.condition_type, stored) == condition
    measure = condition.measure
    assert measure.key == key
    assert Measure.from_key(key, measure.per_subscription) == measure


def test_thresholds_are_written_and_read_as_the_stored_documents() -> None:
    assert json.dumps(thresholds_json(THRESHOLDS)) == json.dumps(STORED["thresholds"])
    assert thresholds_from_json(STORED["thresholds"]) == THRESHOLDS


def test_a_former_version_is_read_with_the_immutable_fields_of_the_current_one() -> None:
    current = AlertDefinition(
        alert_id="alt_1",
        display_name="new",
        state=DefinitionState.ARCHIVED,
        scope=SUBSCRIPTION,
        condition=Condition(ConditionType.SPEND_EXCEEDED, currency="USD"),
        thresholds=THRESHOLDS,
        uniqueness_key="key",
        uniqueness_key_held=False,
        natural_key=None,
        evaluate_on_create=True,
        version=3,
        changed_epoch=7,
        watching_epoch=5,
        watching_time=NOW,
        backfill_after="acme",
        create_time=NOW,
        update_time=NOW,
        archive_time=NOW,
    )
    stored = {
        "name": "old",
        "labels": {"team": "billing"},
        "state": "ACTIVE",
        "condition": {"currency": "USD", "prices": [["PRICE_ID", "INCLUDES", ["p1"]]]},
        "thresholds": [{"notify_on": ["REACHED"], "value": "5"}],
        "uniqueness_key_held": True,
        "archived": False,
    }
    earlier = datetime(2026, 3, 1, tzinfo=UTC)
    former = version_from_json(current, stored, 2, earlier)
    assert json.dumps(version_json(former)) == json.dumps(stored)
    prices = (PriceFilter(PriceField.PRICE_ID, FilterOperator.INCLUDES, ("p1",)),)
    assert former == replace(
        current,
        display_name="old",
        labels={"team": "billing"},
        state=DefinitionState.ACTIVE,
        condition=Condition(ConditionType.SPEND_EXCEEDED, currency="USD", prices=prices),
        thresholds=(Threshold(Decimal(5)),),
        uniqueness_key_held=True,
        version=2,
        update_time=earlier,
        archive_time=None,
        backfill_after=None,
    )
    # A version that was stored before alerts had labels.
    del stored["labels"]
    assert version_from_json(current, stored, 2, earlier) == replace(former, labels={})
