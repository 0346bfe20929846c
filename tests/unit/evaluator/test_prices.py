"""The prices that pass filters, and the canonical form of equal filters."""

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.definition_json import condition_from_json, condition_json
from evaluator.definitions import Condition, natural_key
from evaluator.gauges import Measure
from evaluator.prices import FilterOperator, PriceField, PriceFilter, canonical, passes_all

INCLUDES, EXCLUDES = FilterOperator
PRICE_ID, ITEM_ID, PRICE_TYPE = PriceField
PLAN = Scope(ScopeKind.PLAN, plan_id="gold")

price_filters = st.lists(
    st.builds(
        PriceFilter,
        st.sampled_from(PriceField),
        st.sampled_from(FilterOperator),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(tuple),
    ),
    max_size=5,
)


@pytest.mark.parametrize(
    ("operator", "properties", "passed"),
    [
        (INCLUDES, {"price_id": "a"}, True),
        (INCLUDES, {"price_id": "b"}, False),
        (INCLUDES, {"item_id": "a"}, False),
        (INCLUDES, {}, False),
        (EXCLUDES, {"price_id": "a"}, False),
        (EXCLUDES, {"price_id": "b"}, True),
        (EXCLUDES, {"item_id": "a"}, True),
        (EXCLUDES, {}, True),
    ],
)
def test_an_event_without_the_field_passes_excludes_and_fails_includes(
    operator: FilterOperator, properties: Mapping[str, str], passed: bool
) -> None:
    assert PriceFilter(PRICE_ID, operator, ("a", "x")).passes(properties) is passed


@given(price_filters)
def test_the_canonical_form_passes_what_the_filters_pass(filters: list[PriceFilter]) -> None:
    merged = canonical(filters)
    for values in product([None, *"abcd"], repeat=3):
        properties = {
            field.property_name: value for field, value in zip(PriceField, values, strict=True) if value is not None
        }
        assert passes_all(merged, properties) == all(item.passes(properties) for item in filters)


@given(price_filters)
def test_equal_filters_have_one_canonical_form(filters: list[PriceFilter]) -> None:
    merged = canonical(filters)
    assert canonical(merged) == merged
    assert canonical([*reversed(filters), *filters]) == merged
    assert [item.field for item in merged] == sorted({item.field for item in filters})


@given(price_filters)
def test_price_filters_are_equal_after_they_are_stored_and_read(filters: list[PriceFilter]) -> None:
    measure = Measure(currency="a/b", per_subscription=True, prices=canonical(filters))
    assert Measure.from_key(measure.key, per_subscription=True) == measure
    condition = Condition(ConditionType.SPEND_EXCEEDED, currency="a/b", prices=measure.prices)
    assert condition_from_json(condition.condition_type, condition_json(condition)) == condition
    assert condition.measure == measure


def test_natural_keys_and_measures_differ_by_price_filters() -> None:
    one = PriceFilter(PRICE_ID, INCLUDES, ("a",))
    other = PriceFilter(ITEM_ID, INCLUDES, ("a",))
    chosen = [(), (one,), (other,), (PriceFilter(PRICE_ID, EXCLUDES, ("a",)),), (other, one)]
    conditions = [Condition(ConditionType.SPEND_EXCEEDED, currency="USD", prices=prices) for prices in chosen]
    assert len({natural_key(PLAN, condition) for condition in conditions}) == len(chosen)
    assert len({condition.measure.key for condition in conditions}) == len(chosen)
