"""The client side of the benchmarks: channels, and the calls that prepare a benchmark."""

import asyncio
from collections.abc import Sequence

import grpc

from bench.support.access import Access
from generated.tidemark.v1 import alert_pb2, alert_service_pb2
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub

TIMEOUT = 10.0  # seconds of a unary call
_METHOD = "/tidemark.v1.AlertService/EvaluateUsage"

Call = grpc.aio.StreamStreamCall[bytes, EvaluateUsageResponse]


def channel(server: str) -> grpc.aio.Channel:
    """A channel with its own connection."""
    return Access(server).channel()


async def open_channels(server: str, number: int) -> list[grpc.aio.Channel]:
    """Channels that are connected."""
    return await Access(server).channels(number)


async def close_channels(channels: Sequence[grpc.aio.Channel]) -> None:
    """Closes the channels."""
    await asyncio.gather(*(one.close() for one in channels))


def evaluate_usage(over: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...] = ()) -> Call:
    """A stream for encoded requests, so that the measurement does not include the encoding."""
    method: grpc.aio.StreamStreamMultiCallable[bytes, EvaluateUsageResponse] = over.stream_stream(
        _METHOD, None, EvaluateUsageResponse.FromString
    )
    return method(metadata=metadata)


class NotCounted(Exception):
    """The server did not count an event that it should have counted."""


def check(response: EvaluateUsageResponse) -> None:
    """Raises NotCounted unless every event of the batch was accepted."""
    if response.outcome.duplicates or response.outcome.rejected or response.going_away:
        raise NotCounted(str(response)[:2_000])


async def create_alerts(server: str, alerts: Sequence[alert_pb2.Alert], patience: float = TIMEOUT) -> None:
    """Creates alerts, and waits for the backfill of each, at most `patience` seconds."""
    async with channel(server) as over:
        stub = AlertServiceStub(over)
        for alert in alerts:
            created = await stub.CreateAlert(alert_service_pb2.CreateAlertRequest(alert=alert), timeout=TIMEOUT)
            get = alert_service_pb2.GetAlertRequest(alert_id=created.alert.alert_id)
            async with asyncio.timeout(patience):
                while True:
                    found = await stub.GetAlert(get, timeout=TIMEOUT)
                    if found.alert.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE:
                        break
                    await asyncio.sleep(0.02)
