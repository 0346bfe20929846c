"""The group of batches of one commit has each event once, and the index of each."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from engine.ingest.batches import Batch
from engine.ingest.group import group_of_batches
from evaluator.events import UsageEvent

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
