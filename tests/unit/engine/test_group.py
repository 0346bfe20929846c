"""The group of batches of one commit has each event once, and the index of each."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.ingest.batches import Batch
from engine.ingest.group import EVENTS_AT_ONCE, group_in_slices, group_of_batches
from evaluator.events import UsageEvent
from runtime.turns import Slices

NOW = datetime(2026, 3, 15, tzinfo=UTC)


def event(customer_id: str, event_id: str) -> UsageEvent:
    return UsageEvent(event_id, customer_id, NOW, "calls", Decimal(1), None, None, None, {})


identities = st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))


@given(st.lists(st.lists(identities, max_size=5), min_size=1, max_size=4))
def test_group_has_the_first_event_of_each_identity_and_the_indexes_of_the_others(
    batches: Sequence[Sequence[tuple[str, str]]],
) -> None:
    group = group_of_batches([Batch([event(*identity) for identity in batch]) for batch in batches])
    indexes = [(number, index) for number, batch in enumerate(batches) for index in range(len(batch))]
    first: dict[tuple[str, str], tuple[int, int]] = {}
    for number, index in indexes:
        first.setdefault(batches[number][index], (number, index))
    assert group.first == first
    assert [one.identity for one in group.events] == list(first)
    assert all(group.event_at(first[one.identity]) is one for one in group.events)
    assert group.repeated == [one for one in indexes if one not in first.values()]


@pytest.mark.parametrize("different", [EVENTS_AT_ONCE // 2, EVENTS_AT_ONCE + 7, 3 * EVENTS_AT_ONCE])
async def test_group_of_many_events_is_the_same_in_slices_as_at_once(different: int) -> None:
    events = [event(f"c{number % 50}", f"e{number % different}") for number in range(3 * EVENTS_AT_ONCE)]
    batches = [Batch(events[:3]), Batch([]), Batch(events[3:-2]), Batch(events[-2:])]
    group, at_once = await group_in_slices(batches, Slices(1, 0.0)), group_of_batches(batches)
    assert (group.events, group.repeated) == (at_once.events, at_once.repeated)
    await group.find_first(Slices(1, 0.0))
    assert group.first == at_once.first
    assert list(group.first) == list(at_once.first)
