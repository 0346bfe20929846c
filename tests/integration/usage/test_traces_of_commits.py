"""A commit serves several calls: its span refers to all of them, and each notification belongs to its own call."""

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import grpc
import pytest

from engine.ingest.batches import Batch
from engine.ingest.commit import Committer
from engine.ingest.small_commit import MOST_EVENTS
from engine.rules.registry import RulesRegistry
from evaluator.events import UsageEvent
from runtime.clock import ManualClock
from runtime.tracing.context import TraceContext, of_stored
from store.identity.organizations import Organization
from store.postgres.database import Database
from tests.support.tracing.contexts import context
from tests.support.tracing.spans_in_memory import Spans, ids, recorded
from tests.support.usage.caller import Caller, until, usage_alert
from tests.support.usage.service import GRACE

STORED = "SELECT customer_id, trace_context FROM notification WHERE organization_id = %(organization_id)s ORDER BY 1"
SIZES = pytest.mark.parametrize("events", [1, MOST_EVENTS + 1], ids=["small commit", "large commit"])


@pytest.fixture
def spans() -> Iterator[Spans]:
    """The spans of this process."""
    with recorded() as found:
        yield found


@pytest.fixture
async def committer(caller: Caller, clock: ManualClock) -> AsyncIterator[Committer]:
    """A committer of the caller's organization, which knows the customers; the alert has a threshold of 10."""
    database = Database(caller.database_url, pool_size=2)
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    organization = Organization(organization_id, caller.organization)
    await caller.create(usage_alert("10"))
    made = Committer(database, clock, GRACE, RulesRegistry(), organization)
    for number in range(2):  # see test_small_commits.py
        await made.commit([batch(clock, one, 1, f"earlier {number}", "0") for one in ("acme", "bolt", "core")])
    yield made
    await database.close()


def batch(
    clock: ManualClock, customer: str, events: int, event_id: str, quantity: str, trace: TraceContext | None = None
) -> Batch:
    """Events of one customer; the first has the quantity, and the others 0."""
    return Batch(
        [
            UsageEvent(
                f"{event_id} {number}",
                customer,
                clock.now(),
                "calls",
                Decimal(0 if number else quantity),
                None,
                None,
                None,
                {},
            )
            for number in range(events)
        ],
        trace=trace,
    )


async def stored(caller: Caller) -> dict[str, TraceContext | None]:
    """The trace of the notification of each customer."""
    return {customer: of_stored(text) if text else None for customer, text in await caller.rows(STORED)}


@SIZES
async def test_each_notification_belongs_to_the_call_whose_event_caused_it(
    caller: Caller, clock: ManualClock, committer: Committer, events: int
) -> None:
    """Also where tracing is off."""
    await committer.commit(
        [
            batch(clock, "acme", events, "a", "20", context(1, state="a=1")),
            batch(clock, "bolt", 1, "b", "20"),
            batch(clock, "core", 1, "c", "20", context(2, sampled=False)),
        ]
    )
    assert await stored(caller) == {
        "acme": context(1, state="a=1"),
        "bolt": None,
        "core": context(2, sampled=False),
    }


@SIZES
async def test_a_resent_event_belongs_to_the_call_that_first_sent_it(
    caller: Caller, clock: ManualClock, committer: Committer, events: int
) -> None:
    await committer.commit(
        [
            batch(clock, "acme", events, "a", "20", context(1)),
            batch(clock, "acme", events, "a", "20", context(2)),
        ]
    )
    assert await stored(caller) == {"acme": context(1)}


@SIZES
async def test_a_commit_is_a_part_of_its_first_sampled_call_and_links_to_all(
    caller: Caller, clock: ManualClock, committer: Committer, spans: Spans, events: int
) -> None:
    calls = [context(1, sampled=False), context(2), context(3)]
    await committer.commit(
        [
            *(batch(clock, "acme", 1, f"a{number}", "0", call) for number, call in enumerate(calls)),
            batch(clock, "bolt", events, "b", "20", context(3)),
            batch(clock, "core", 1, "c", "20", context(2)),
        ]
    )
    [commit], [evaluation] = spans.named("commit"), spans.named("evaluate")
    assert ids(commit)[::2] == (context(2).trace_id, context(2).span_id)
    assert ids(evaluation)[::2] == ids(commit)[:2]
    assert [link.context.span_id for link in commit.links] == [1, 2, 3]
    assert commit.attributes is not None
    assert commit.attributes["tidemark.commit.batches"] == 5
    assert commit.attributes["tidemark.commit.events"] == 4 + events
    assert [event.name for event in commit.events][-2:] == ["commit", "outcomes"]
    # Of one trace, the evaluation is nearer than the call.
    assert await stored(caller) == {
        "bolt": context(3),
        "core": TraceContext(context(2).trace_id, ids(evaluation)[1], 1),
    }


async def test_a_commit_without_traced_calls_is_not_recorded(
    caller: Caller, clock: ManualClock, committer: Committer, spans: Spans
) -> None:
    await committer.commit([batch(clock, "acme", 1, "a", "20")])
    assert (spans.names(), await stored(caller)) == ([], {"acme": None})


async def test_a_commit_of_calls_that_are_not_sampled_is_not_recorded(
    caller: Caller, clock: ManualClock, committer: Committer, spans: Spans
) -> None:
    await committer.commit([batch(clock, "acme", 1, "a", "20", context(1, sampled=False))])
    assert spans.names() == []
    [trace] = (await stored(caller)).values()
    assert trace is not None
    assert (trace.trace_id, trace.is_sampled) == (context(1).trace_id, False)


async def test_a_repeated_commit_has_one_span(
    caller: Caller, clock: ManualClock, committer: Committer, spans: Spans
) -> None:
    many = MOST_EVENTS + 1
    await committer.commit([batch(clock, "acme", many, "a", "1", context(1))])
    await committer.commit([batch(clock, "acme", many + 1, "a", "1", context(2))])
    first, second = spans.named("commit")
    assert "duplicates found" not in [event.name for event in first.events]
    assert [event.name for event in second.events].count("duplicates found") == 1


async def test_a_call_of_an_unknown_method_has_a_span_without_its_name(caller: Caller, spans: Spans) -> None:
    call: Any = caller.server.channel.unary_unary("/Invented/Method")
    with pytest.raises(grpc.aio.AioRpcError):
        await call(b"", metadata=(*caller.metadata, ("traceparent", context(1).traceparent)))

    async def is_recorded() -> bool:
        return spans.names() != []

    await until(is_recorded)
    assert spans.names() == ["_OTHER"]
