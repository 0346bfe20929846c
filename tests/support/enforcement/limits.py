"""LimitService for tests: requests and answers as JSON."""

from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from generated.tidemark.v1 import limit_service_pb2 as messages
from generated.tidemark.v1 import limit_service_pb2_grpc
from tests.support.server.running import reason_of
from tests.support.usage.caller import DEADLINE, Caller
from tests.support.waiting import within

METHODS = messages.DESCRIPTOR.services_by_name["LimitService"].methods_by_name


class Limits:
    """Calls of LimitService with requests and answers as JSON."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.stub: Any = limit_service_pb2_grpc.LimitServiceStub(caller.server.channel)

    async def call(self, method: str, **request: Any) -> dict[str, Any]:
        """The answer to a unary call."""
        sent = ParseDict(request, request_of(method))
        return shown(await getattr(self.stub, method)(sent, metadata=self.caller.metadata, timeout=DEADLINE))

    async def refused(self, method: str, **request: Any) -> tuple[str, str]:
        """Code and reason of a unary call that is refused."""
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.call(method, **request)
        return raised.value.code().name, reason_of(raised.value).removeprefix("ERROR_REASON_")

    def open(self, method: str, request: Message | None = None) -> Any:
        """An open stream."""
        arguments = () if request is None else (request,)
        return getattr(self.stub, method)(*arguments, metadata=self.caller.metadata, timeout=240)

    async def reserve(self, reservation_id: str, quantity: str = "1", **fields: Any) -> dict[str, Any]:
        """The answer to ReserveUsage."""
        return await self.call("ReserveUsage", reservationId=reservation_id, usage=usage(quantity), **fields)

    async def remaining(self, customer_id: str = "acme") -> str:
        """What is left of the limit of a customer."""
        answer = await self.call("CheckUsage", usage=usage("1", customer_id))
        return str(answer["decision"]["limit"]["remaining"])


def request_of(method: str) -> Message:
    """An empty request."""
    found: Message = getattr(messages, METHODS[method].input_type.name)()
    return found


def shown(message: Message) -> dict[str, Any]:
    """A message as JSON."""
    found: dict[str, Any] = MessageToDict(message)
    return found


def usage(quantity: str = "1", customer_id: str = "acme", **fields: Any) -> dict[str, Any]:
    """Usage of calls."""
    return {"customerId": customer_id, "metricId": "calls", "quantity": quantity, **fields}


def named(reservation_id: str, customer_id: str = "acme") -> dict[str, str]:
    """A reservation."""
    return {"customerId": customer_id, "reservationId": reservation_id}


def message(batch_id: str, *requests: dict[str, Any]) -> messages.EnforceUsageRequest:
    """A message of the stream."""
    return ParseDict({"batchId": batch_id, "requests": list(requests)}, messages.EnforceUsageRequest())


def reserve(reservation_id: str, quantity: str = "1", customer_id: str = "acme", **fields: Any) -> dict[str, Any]:
    """A request to reserve."""
    return {"reserve": {"reservationId": reservation_id, "usage": usage(quantity, customer_id), **fields}}


async def next_of(stream: Any) -> dict[str, Any]:
    """The next answer that is no heartbeat."""
    async with within("an answer"):
        while True:
            answer = await stream.read()
            assert answer is not grpc.aio.EOF, "the stream has ended"
            if not answer.heartbeat:
                return shown(answer)


def watched(*customer_ids: str) -> messages.WatchDecisionsRequest:
    """A request to watch one call of each customer."""
    sent = {"customerIds": list(customer_ids), "usages": [{"metricId": "calls", "quantity": "1"}]}
    return ParseDict(sent, messages.WatchDecisionsRequest())


async def remaining_of(stream: Any) -> dict[str, str]:
    """What the next answer says of each customer."""
    answer = await next_of(stream)
    return {one["customerId"]: one["decision"].get("limit", {}).get("remaining", "") for one in answer["decisions"]}


def time_of(text: str) -> datetime:
    """The time of a timestamp in JSON."""
    return datetime.fromisoformat(text).astimezone(UTC)
