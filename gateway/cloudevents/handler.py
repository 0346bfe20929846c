"""Counts CloudEvents as usage: each is answered for itself, and counts once however often it is sent."""

import asyncio
import re
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as AnyMapping
from typing import Any

from google.rpc import code_pb2, error_details_pb2, status_pb2

from gateway.calls import refusals
from gateway.calls.backend import Metadata
from gateway.calls.channels import Channels
from gateway.cloudevents.events import CloudEvent
from gateway.cloudevents.forms import read_events
from gateway.cloudevents.mapping import Mapping
from gateway.transcoding.problems import Violation
from gateway.transcoding.writing import writer_of
from generated.tidemark.v1 import alert_service_pb2, usage_pb2

RPC = "/tidemark.v1.AlertService/EvaluateUsageBatch"
_PLACE = re.compile(r"^batch\.events\[\d+\]\.?")
AT_ONCE = 50  # events that are mapped without a pause, about 1 ms
MAX_VIOLATIONS = 10  # of one event that are answered
COUNTED, REJECTED = "COUNTED", "REJECTED"
# An event with one of these may be counted when it is sent again.
_PASSING = {code_pb2.INTERNAL, code_pb2.UNAVAILABLE}


class CloudEvents:
    """Counts the events of requests."""

    rpc = RPC

    def __init__(self, mapping: Mapping, channels: Channels, most: int) -> None:
        """most: events of a batch."""
        self._mapping = mapping
        self._most = most
        self._channels = channels

    async def count(
        self, headers: AnyMapping[str, str], body: bytes, metadata: Metadata, timeout: float | None
    ) -> tuple[int, dict[str, Any], str]:
        """Counts the events of a request: the code of HTTP, the answer, and the id of the call. Raises Refusal.

        A single event that is refused is an error. Of a batch, each event has its own outcome. The code says whether
        it helps to send the request again: 503 where an event could not be recorded.
        """
        sent, is_batch = read_events(headers, body, self._most)
        events: list[CloudEvent] = []
        usage, positions, refused = await self._mapped(sent, events)
        request = alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=usage))
        try:
            answer, request_id = await self._channels.unary(RPC, request.SerializeToString(), metadata, timeout)
        except refusals.Refusal as refusal:
            # Without events it is refused, but only after the caller was found good.
            if usage or not refused or refusal.status.code != code_pb2.INVALID_ARGUMENT:
                raise
            answer, request_id = b"", refusal.headers.get("x-request-id", "")
        outcome = alert_service_pb2.EvaluateUsageBatchResponse.FromString(answer).outcome
        ids = dict(zip(positions, (one.event_id for one in usage), strict=True))
        for rejection in outcome.rejected:
            refused[positions[rejection.index]] = _without_index(rejection.status)
        if not is_batch and refused:
            raise refusals.of_status(refused[0])
        passing = any(status.code in _PASSING for status in refused.values())
        return 503 if passing else 200, await _answer(events, outcome, ids, refused), request_id

    async def _mapped(
        self, sent: Iterable[CloudEvent], events: list[CloudEvent]
    ) -> tuple[list[usage_pb2.UsageEvent], list[int], dict[int, status_pb2.Status]]:
        """The usage events, the position of each in the request, and the errors of the others by their positions.

        events: gets all of them.
        """
        usage, positions, refused = [], [], dict[int, status_pb2.Status]()
        for position, event in enumerate(sent):
            events.append(event)
            if position % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)  # other calls of the process have a turn
            arguments, problems = self._mapping.arguments(event)
            if not problems:
                try:
                    usage.append(usage_pb2.UsageEvent(**arguments))
                    positions.append(position)
                    continue
                except (ValueError, TypeError):
                    problems = [Violation("", "a text has characters that UTF-8 cannot express")]
            refused[position] = refusals.invalid_fields(problems[:MAX_VIOLATIONS]).status
        return usage, positions, refused


def _without_index(status: status_pb2.Status) -> status_pb2.Status:
    """The error of a usage event with paths that begin in the event: its place among the good ones says nothing."""
    bad = error_details_pb2.BadRequest()
    for detail in status.details:
        if detail.Unpack(bad):
            for one in bad.field_violations:
                one.field = _PLACE.sub("", one.field)
            detail.Pack(bad)
    return status


async def _answer(
    events: Sequence[CloudEvent],
    outcome: usage_pb2.UsageOutcome,
    ids: AnyMapping[int, str],
    refused: AnyMapping[int, status_pb2.Status],
) -> dict[str, Any]:
    found = []
    for position, event in enumerate(events):
        if position % AT_ONCE == AT_ONCE - 1:
            await asyncio.sleep(0)
        shown: dict[str, Any] = {"status": REJECTED if position in refused else COUNTED}
        if type(event.attributes.get("id")) is str:
            shown["id"] = event.attributes["id"]
        if position in ids:
            shown["eventId"] = ids[position]
        if position in refused:
            shown["error"] = refusals.error_json(refused[position])
        found.append(shown)
    answer = {
        "accepted": outcome.accepted,
        "duplicates": outcome.duplicates,
        "rejected": len(refused),
        "events": found,
    }
    shown = writer_of(usage_pb2.UsageOutcome.DESCRIPTOR)(outcome)
    return answer | {key: shown[key] for key in ("transitions", "overLimits", "omitted") if key in shown}
