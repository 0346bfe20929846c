"""Raw events: in which metrics they count, and with which amounts."""

from datetime import UTC, datetime
from decimal import Decimal

from evaluator.events import UsageEvent
from evaluator.prices import FilterOperator
from evaluator.raw_events import EventFilter, RawEvents, as_metric_events, canonical

NOW = datetime(2026, 3, 1, tzinfo=UTC)
INCLUDES, EXCLUDES = FilterOperator.INCLUDES, FilterOperator.EXCLUDES


def raw_events(*filters: EventFilter, quantity_property: str | None = None) -> RawEvents:
    return RawEvents("use", filters, quantity_property, 1, NOW)


def event(
    metric_id: str = "", cost: str | None = None, event_name: str | None = "use", **properties: str
) -> UsageEvent:
    amount, currency = (None, None) if cost is None else (Decimal(cost), "USD")
    return UsageEvent("e", "acme", NOW, metric_id, Decimal(7), None, amount, currency, properties, event_name)


def test_events_without_a_raw_one_are_the_same_list() -> None:
    events = [event("calls", event_name=None), event("bytes", event_name=None)]
    assert as_metric_events({}, events) is events


def test_raw_event_becomes_an_event_of_each_metric_and_one_of_its_cost() -> None:
    metrics = {"use": {"m1": raw_events(), "m2": raw_events(quantity_property="size"), "m3": raw_events()}}
    direct, sent = event("calls", event_name=None), event(cost="3", size="2.50")
    found = as_metric_events(metrics, [direct, sent])
    assert [(one.metric_id, one.quantity, one.cost, one.currency) for one in found[1:-1]] == [
        ("m1", 7, None, None),
        ("m2", Decimal("2.5"), None, None),
        ("m3", 7, None, None),
    ]
    assert (found[0], found[-1]) == (direct, sent)
    assert {one.identity for one in found} == {("acme", "e")}


def test_raw_event_of_another_type_or_without_an_amount_counts_in_no_metric() -> None:
    metrics = {"use": {"m": raw_events(quantity_property="size")}}
    assert as_metric_events(metrics, [event(), event(size="x"), event(event_name="other", size="1")]) == []


def test_filters_that_differ_in_order_and_repetition_have_one_form() -> None:
    first, second = EventFilter("b", INCLUDES, ("y", "x", "y")), EventFilter("a", EXCLUDES)
    assert canonical([first, second, first]) == canonical([second, EventFilter("b", INCLUDES, ("x", "y"))])


def test_filter_without_values_passes_on_the_existence_of_the_property() -> None:
    assert EventFilter("a", INCLUDES).passes({"a": ""})
    assert not EventFilter("a", INCLUDES).passes({})
    assert EventFilter("a", EXCLUDES).passes({"b": ""})
    assert not EventFilter("a", EXCLUDES).passes({"a": "x"})
