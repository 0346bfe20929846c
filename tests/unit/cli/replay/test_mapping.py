"""Mapping of columns to usage events: defaults, constants, properties, times, ids."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from cli.replay.compiled import compiled
from cli.replay.mapping import FieldSource, RowMapping, RowProblem
from cli.replay.numbers import NumberForm
from cli.replay.rows import Row
from cli.replay.times import TimeReader
from generated.tidemark.v1.usage_pb2 import UsageEvent

VALUES = {
    "customer_id": "acme",
    "metric_id": "tokens",
    "quantity": "12.5",
    "event_time": "2026-03-01T10:00:00Z",
}


def event(
    mapping: RowMapping | None = None, /, number: int = 1, shift: timedelta = timedelta(), **changes: Any
) -> UsageEvent:
    to_event = compiled(
        mapping or RowMapping(), None, NumberForm().reader(), TimeReader(None, shift), are_texts=False
    )
    return UsageEvent.FromString(to_event(Row(number, number + 1, {**VALUES, **changes})).content)


def time_of(event: UsageEvent) -> datetime:
    return event.event_time.ToDatetime(UTC)


def test_columns_with_the_names_of_the_contract_need_no_option() -> None:
    found = event(event_id="e1", subscription_id="main", cost="0.5", currency="EUR")
    assert found == UsageEvent(
        event_id="e1",
        customer_id="acme",
        subscription_id="main",
        metric_id="tokens",
        quantity="12.5",
        cost="0.5",
        currency="EUR",
        event_time=Timestamp(seconds=1772359200),
    )


def test_option_names_a_column_or_gives_a_constant() -> None:
    sources = {"customer_id": FieldSource.parse("account"), "metric_id": FieldSource.parse("=calls")}
    found = event(RowMapping(sources), account="globex")
    assert (found.customer_id, found.metric_id) == ("globex", "calls")


def test_constant_may_contain_an_equals_sign() -> None:
    assert FieldSource.parse("=a=b") == FieldSource(constant="a=b")


def test_column_may_be_a_path_into_an_ndjson_row() -> None:
    mapping = RowMapping({"quantity": FieldSource.parse("usage.tokens")})
    assert event(mapping, usage={"tokens": "7"}).quantity == "7"
    with pytest.raises(RowProblem, match="quantity is empty"):
        event(mapping, usage="7")


def test_a_row_without_the_column_says_which_columns_it_has() -> None:
    mapping = RowMapping({"quantity": FieldSource.parse("usage.tokens")})
    with pytest.raises(RowProblem) as raised:
        event(mapping, usage={"token": "7"})
    assert str(raised.value) == (
        "quantity is empty: the row does not have 'usage.tokens';"
        " it has customer_id, metric_id, quantity, event_time, usage"
    )
    assert raised.value.kind == "quantity is empty: the row does not have 'usage.tokens'"
    with pytest.raises(RowProblem) as raised:
        event(mapping, usage={"tokens": None})
    assert str(raised.value) == "quantity is empty"
    to_event = compiled(RowMapping(), None, NumberForm().reader(), TimeReader(), are_texts=False)
    with pytest.raises(RowProblem, match="not have any of 'event_time', 'time', 'timestamp'; it has customer_id, m"):
        to_event(Row(1, 2, {name: value for name, value in VALUES.items() if name != "event_time"}))


def test_rows_of_other_shapes_are_read_as_one_by_one() -> None:
    mapping = RowMapping({"quantity": FieldSource.parse("usage.tokens"), "currency": FieldSource.parse("=EUR")})
    rows: list[dict[str, Any]] = [
        {"customer_id": " acme ", "metric_id": "m", "usage": {"tokens": " 5 "}, "time": VALUES["event_time"]},
        {
            "usage.tokens": "6",
            "usage": {"tokens": "5"},
            "metric_id": "m",
            "customer_id": "acme",
            "time": "1700000000",
        },
        {"customer_id": "acme", "metric_id": "m", "usage": {"tokens": "5"}, "time": None, "timestamp": "1700000000"},
        {"customer_id": "acme", "metric_id": "m", "usage": {"tokens": "5"}, "event_time": "", "time": "1700000001"},
        {"customer_id": "acme", "metric_id": None, "event_name": "raw", "usage": None, "time": "1700000000"},
    ]
    to_event = compiled(mapping, None, NumberForm().reader(), TimeReader(), are_texts=False)
    for _ in range(2):  # the shapes are known in the second round
        found = [UsageEvent.FromString(to_event(Row(1, 2, row)).content) for row in rows]
        assert [(one.customer_id, one.metric_id, one.quantity) for one in found] == [
            ("acme", "m", "5"),
            ("acme", "m", "6"),
            ("acme", "m", "5"),
            ("acme", "m", "5"),
            ("acme", "", ""),
        ]
        assert [one.event_time.seconds for one in found[1:]] == [1700000000, 1700000000, 1700000001, 1700000000]
        assert {one.currency for one in found} == {"EUR"}


def test_blanks_around_a_cell_are_removed() -> None:
    assert event(customer_id=" acme ", quantity=" 1 ").customer_id == "acme"


@pytest.mark.parametrize("name", ["customer_id", "metric_id", "quantity", "event_time"])
@pytest.mark.parametrize("value", ["", None])
def test_row_without_a_required_value_is_refused(name: str, value: str | None) -> None:
    with pytest.raises(RowProblem, match=f"{name} is empty"):
        event(None, **dict[str, Any]({name: value}))


def test_value_that_is_neither_text_nor_number_is_refused() -> None:
    with pytest.raises(RowProblem, match="quantity is neither text nor a number"):
        event(quantity=True)
    with pytest.raises(RowProblem, match="the property tags is neither"):
        event(properties={"tags": ["a"]})


def test_invalid_amount_is_left_for_the_server_to_reject() -> None:
    assert event(quantity="1e999").quantity == "1e999"


def test_properties_come_from_options_columns_and_the_object_of_the_row() -> None:
    mapping = RowMapping(properties={"region": FieldSource.parse("zone"), "source": FieldSource.parse("=batch")})
    changes: dict[str, Any] = {"properties.model": "large", "properties.empty": "", "zone": "eu"}
    changes["properties"] = {"paid": True, "n": None}
    assert event(mapping, **changes).properties == {
        "region": "eu",
        "source": "batch",
        "model": "large",
        "paid": "true",
    }


def test_times_are_moved_by_whole_days() -> None:
    assert time_of(event(shift=timedelta(days=-31))) == datetime(2026, 1, 29, 10, tzinfo=UTC)


@pytest.mark.parametrize("text", ["soon", "2026-13-01", "nan", "1e300", "9999-12-31T23:59:59-01:00"])
def test_time_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RowProblem, match="event_time is not a time"):
        event(event_time=text)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-01T10:00:00Z", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2026-03-01T10:00:00+02:00", datetime(2026, 3, 1, 8, tzinfo=UTC)),
        ("2026-03-01 10:00:00", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("2023-11-16 18:15:46.6805900", datetime(2023, 11, 16, 18, 15, 46, 680590, tzinfo=UTC)),
        ("2026-03-01T10:00:00.123456789Z", datetime(2026, 3, 1, 10, 0, 0, 123456, tzinfo=UTC)),
        ("2026-03-01", datetime(2026, 3, 1, tzinfo=UTC)),
        ("1772359200", datetime(2026, 3, 1, 10, tzinfo=UTC)),
        ("1772359200.25", datetime(2026, 3, 1, 10, 0, 0, 250000, tzinfo=UTC)),
        ("1772359200250", datetime(2026, 3, 1, 10, 0, 0, 250000, tzinfo=UTC)),
    ],
)
def test_times_are_read_in_the_forms_that_files_have(text: str, time: datetime) -> None:
    assert time_of(event(event_time=text)) == time


def test_derived_id_is_the_same_in_every_run() -> None:
    assert event().event_id == event().event_id
    assert event().event_id == "row_ib4bm7bbavt7p446jwawonad"


def test_equal_rows_become_two_events() -> None:
    assert event(number=1).event_id != event(number=2).event_id


def test_row_that_is_mapped_in_two_ways_becomes_two_events() -> None:
    other = RowMapping({"metric_id": FieldSource.parse("=calls")})
    grouped = RowMapping(properties={"region": FieldSource.parse("=eu")})
    salted = RowMapping(salt="eu")
    ids = {event(mapping).event_id for mapping in (RowMapping(), other, grouped, salted)}
    assert len({*ids, event(shift=timedelta(days=1)).event_id}) == 5


def test_row_with_an_empty_id_gets_a_derived_id() -> None:
    assert event(event_id="").event_id == event().event_id


def test_missing_columns_are_all_listed() -> None:
    mapping = RowMapping({"customer_id": FieldSource.parse("account"), "metric_id": FieldSource.parse("=calls")})
    assert mapping.missing(["customer", "cost"]) == [
        "there is no column 'account'",
        "no column gives the field quantity",
        "no column gives the field event_time",
    ]
    assert mapping.missing(["account", "quantity", "timestamp"]) == []
    assert mapping.missing(["account", "event_name", "timestamp"]) == []
