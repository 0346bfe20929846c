"""Two organizations that make the same calls at the same servers, and what is stored of each."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from generated.tidemark.v1 import alert_pb2
from tests.support.usage.caller import Caller

REFUSALS = (
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,  # an alert of one customer cannot be switched for another one
    grpc.StatusCode.NOT_FOUND,
)


class Twin:
    """One of the two. callers: of each server. alerts: as created, in their order."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self.callers = callers
        self.alerts: list[alert_pb2.Alert] = []

    async def stored(self, *, levels: bool) -> dict[str, list[Any]]:
        """The gauges, the states and the notifications, with nothing that depends on the organization.

        levels: with the trip levels of the gauges, and the epochs at which they were evaluated.
        """
        caller = self.callers[0]
        gauges = await caller.rows(
            "SELECT gauge_id::text, customer_id, measure, group_values, period_start, trim_scale(value), scale"
            + (", trim_scale(trip_above), trim_scale(trip_below), rules_epoch" if levels else "")
            + " FROM gauge WHERE organization_id = %(organization_id)s ORDER BY gauge_id"
        )
        states = await caller.rows(
            "SELECT gauge_id::text, alert_id, alert_version, reached, sequence, change_reason FROM alert_state"
            " WHERE organization_id = %(organization_id)s"
        )
        bodies = [
            {name: value for name, value in one.body.items() if name != "id"} for one in await caller.notifications()
        ]
        return {
            "gauges": gauges,
            "states": sorted(map(self.named, states)),
            "notifications": sorted(map(self.named, bodies)),
        }

    def named(self, found: object) -> str:
        """Something stored as text, with numbers in place of the ids of alerts."""
        text = json.dumps(found, sort_keys=True, default=str)
        for number, alert in enumerate(self.alerts):
            text = text.replace(alert.alert_id, f"alert-{number}")
        return text.replace(self.callers[0].organization, "organization")


Call = Callable[[Twin, Caller], Awaitable[Any]]


async def both(twins: Sequence[Twin], at: int, call: Call) -> list[Any]:
    """Makes a call by both, at the server of that number. Returns the answers; both may be refused, and alike."""
    answers = [await _answer(one, one.callers[at], call) for one in twins]
    if any(isinstance(one, grpc.StatusCode) for one in answers):
        assert answers[0] == answers[1]
    return answers


async def _answer(twin: Twin, caller: Caller, call: Call) -> Any:
    try:
        return await call(twin, caller)
    except grpc.aio.AioRpcError as error:
        if error.code() not in REFUSALS:
            raise
        return error.code()
