"""The rows of COPY are the same, written natively and in Python."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluator.events import UsageEvent
from store.usage import events as stored_events

if stored_events.HAS_NATIVE_ROWS:
    from store.usage import native_rows

NOON = datetime(2026, 3, 15, 12, tzinfo=UTC)
EVENT = UsageEvent("e1", "acme", NOON, "calls", Decimal("1.50"), None, None, None, {})

compiled = pytest.mark.skipif(not stored_events.HAS_NATIVE_ROWS, reason="the writer of rows is not compiled")

texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=128) | st.sampled_from(
    ["a", "\\", "\\N", "ü", "😀" * 128, '"']
)
amounts = st.decimals(
    allow_nan=False, allow_infinity=False, places=18, min_value=-(10**20) + 1, max_value=10**20 - 1
) | (st.sampled_from([Decimal(text) for text in ("0", "-0", "1E-18", "0.0000001", "1.50", "007", "9" * 38, "12E3")]))
times = st.datetimes(timezones=st.just(UTC)) | st.sampled_from(
    [NOON, NOON.replace(microsecond=1), NOON.replace(microsecond=999_999), NOON.replace(microsecond=100_000)]
)
events = st.builds(
    UsageEvent,
    texts,
    texts,
    times,
    texts | st.just(""),
    amounts,
    st.none() | texts,
    st.none() | amounts,
    st.none() | texts,
    st.dictionaries(texts, texts, max_size=5) | st.just(MappingProxyType({})),
    st.none() | texts,
)


@compiled
@given(st.lists(events, min_size=1, max_size=8), st.integers(1, 2**19), times)
@settings(max_examples=300)
def test_rows_of_random_events_are_written_alike_by_both(
    events: list[UsageEvent], organization_id: int, now: datetime
) -> None:
    arguments = (f"{organization_id}\t", now.isoformat(), events)
    assert native_rows.lines(*arguments) == stored_events.lines(*arguments)
    native, python = (stored_events.copy_text(organization_id, now, events, native=way) for way in (True, False))
    assert native == python


@compiled
def test_long_rows_and_many_rows_are_written_alike_by_both() -> None:
    properties = {f"{number:0128}": '"\\' * 128 for number in range(64)}
    events = [
        EVENT._replace(event_id=f"e{number}", event_time=NOON + timedelta(days=number), properties=properties)
        for number in range(200)
    ]
    events += [EVENT._replace(event_id=f"f{number}") for number in range(2_000)]
    assert native_rows.lines("1\t", "now", events) == stored_events.lines("1\t", "now", events)


@compiled
def test_rows_without_a_head_are_written_alike_by_both() -> None:
    assert native_rows.lines("", "now", [EVENT]) == stored_events.lines("", "now", [EVENT])


@compiled
def test_what_is_no_event_in_utc_is_refused() -> None:
    number: Any = 1
    nothing: Any = None
    of_wrong_types = (
        EVENT._replace(event_id=number),
        EVENT._replace(customer_id=nothing),
        EVENT._replace(event_time=number),
        EVENT._replace(event_time=nothing),
        EVENT._replace(properties={number: "v"}),
    )
    for wrong in (*of_wrong_types, EVENT[:9], list(EVENT), None):
        with pytest.raises(TypeError):
            native_rows.lines("1\t", "now", [EVENT, wrong])  # type: ignore[list-item]
    elsewhere = NOON.astimezone(timezone(timedelta(hours=1)))
    with pytest.raises(ValueError, match="UTC"):
        native_rows.lines("1\t", "now", [EVENT._replace(event_time=elsewhere)])
