"""LimitService: the stream of decisions that change."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime

from generated.tidemark.v1 import limit_service_pb2 as messages
from runtime.turns import Slices
from server.authentication.revocation import raise_if_revoked
from server.calls.answer_size import DEFAULT_ROOM, FIELD_BYTES
from server.calls.context import Context, when_over
from server.calls.current_call import current_organization
from server.calls.errors import mapped
from server.calls.lifecycle import Drain
from server.calls.stream_end import stream_end
from server.calls.validation import Violations, to_timestamp
from server.enforcement.checks import MAX_USAGES
from server.enforcement.errors import error_table
from server.enforcement.visibility import only_customer
from server.enforcement.watched import Found, Subscriber, Watch
from server.enforcement.watching import DecisionWatch
from server.mapping.decisions import read_policy, write_decision
from server.mapping.requested_usage import read_customers, read_templates

MAX_CUSTOMERS = 1_000  # of one stream
MAX_DECISIONS = 10_000  # of one stream
DECISIONS_AT_ONCE = 500  # in one answer


class WatchHandlers:
    """Serves WatchDecisions. heartbeat: seconds without an answer until a stream sends one."""

    def __init__(self, watch: DecisionWatch, drain: Drain, *, heartbeat: float) -> None:
        self._watch = watch
        self._drain = drain
        self._heartbeat = heartbeat
        self._errors = error_table()

    async def WatchDecisions(
        self, request: messages.WatchDecisionsRequest, context: Context
    ) -> AsyncIterator[messages.WatchDecisionsResponse]:
        """Sends all decisions, and then those that change, until the server drains or the stream is too old."""
        subscriber = self._watch.subscribe(current_organization(), _read_watches(request))
        subscriber.limited_to = only_customer()
        when_over(lambda _: self._watch.leave(subscriber))
        ending = stream_end(self._drain)
        ending.add_done_callback(subscriber.wake)
        usages = len(request.usages)
        loop = asyncio.get_running_loop()
        sent = loop.time()
        try:
            async with contextlib.aclosing(self._watch.read_first(subscriber)) as parts:
                async for _ in parts:
                    while (answer := await self._next(subscriber, usages)) is not None:
                        yield answer
                    if ending.done():
                        break
            sent = loop.time()
            while not ending.done():
                await subscriber.changed(sent + self._heartbeat - loop.time())
                while not ending.done() and (answer := await self._next(subscriber, usages)) is not None:
                    sent = loop.time()
                    yield answer
                if not ending.done() and loop.time() >= sent + self._heartbeat:
                    sent = loop.time()
                    yield _heartbeat(self._watch.watched(subscriber).read_time)
            raise_if_revoked()
            yield messages.WatchDecisionsResponse(going_away=True)
        finally:
            ending.cancel()

    async def _next(self, subscriber: Subscriber, usages: int) -> messages.WatchDecisionsResponse | None:
        """An answer with some of the decisions that have changed; None if none has."""
        taken = subscriber.take(DECISIONS_AT_ONCE)
        if not taken:
            return None
        slices = Slices(subscriber.organization.organization_id)
        await slices.begin()
        answer = messages.WatchDecisionsResponse()
        room = DEFAULT_ROOM
        while taken and room > 0:  # a decision has a few kilobytes at most, so the last one may exceed the room
            index = next(iter(taken))
            found, reading = taken.pop(index)
            shown = answer.decisions.add(
                customer_id=subscriber.watches[index].customer_id, usage_index=index % usages
            )
            self._write(shown, found)
            if subscriber.limited_to and not subscriber.shows_anew(index, shown):
                del answer.decisions[-1]
                continue
            room -= shown.ByteSize() + FIELD_BYTES
            read_time = to_timestamp(reading.time)
            if not answer.HasField("update_time") or read_time.ToNanoseconds() < answer.update_time.ToNanoseconds():
                answer.update_time.CopyFrom(read_time)
            await slices.pause()
        for index, (found, reading) in taken.items():
            subscriber.put_back(index, found, reading)
        return answer if answer.decisions else await self._next(subscriber, usages)

    def _write(self, shown: messages.WatchedDecision, found: Found) -> None:
        if isinstance(found, Exception):
            shown.error.CopyFrom(mapped(found, self._errors).status())
        else:
            write_decision(shown.decision, found)


def _read_watches(request: messages.WatchDecisionsRequest) -> list[Watch]:
    """What a request watches: each usage of the first customer, and so on. Raises InvalidArgument."""
    violations = Violations()
    customer_ids = read_customers(violations, "customer_ids", request.customer_ids, MAX_CUSTOMERS)
    templates = read_templates(violations, "usages", request.usages, MAX_USAGES)
    number = len(customer_ids) * len(templates)
    if number > MAX_DECISIONS and not violations.found:
        violations.add("customer_ids", f"with all usages there are {number} decisions; at most {MAX_DECISIONS}")
    policy = read_policy(violations, "overage_policy", request.overage_policy)
    violations.raise_if_any()
    return [Watch(customer_id, template, policy) for customer_id in customer_ids for template in templates]


def _heartbeat(read_time: datetime | None) -> messages.WatchDecisionsResponse:
    return messages.WatchDecisionsResponse(
        heartbeat=True, update_time=None if read_time is None else to_timestamp(read_time)
    )
