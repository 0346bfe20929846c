"""Everything that the watch streams of the story show: one stream of each server."""

import asyncio
import json
from collections import Counter, defaultdict
from dataclasses import replace

import grpc

from generated.tidemark.v1 import alert_service_pb2, notification_pb2
from runtime.tasks import is_cancelled
from server.calls.validation import to_timestamp
from tests.reference.alerts import Notification
from tests.support.story.customers import Notice, Place
from tests.support.story.servers import RETRIED, RETRY_DELAY, Servers
from tests.support.usage.draws import START
from tests.support.usage.words import notification_of

Response = alert_service_pb2.WatchNotificationsResponse


class Names:
    """The alerts by the names that the model has, and by the ids that the service gave them."""

    def __init__(self) -> None:
        self.ids: dict[str, str] = {}
        self.by_id: dict[str, str] = {}

    def add(self, name: str, alert_id: str) -> None:
        """Notes the id of an alert."""
        self.ids[name] = alert_id
        self.by_id[alert_id] = name

    def of(self, alert_id: str) -> str:
        """The name of an alert; its id when no answer with the id has come yet."""
        return self.by_id.get(alert_id, alert_id)


class Feed:
    """What a stream of one server has shown, and again a stream of another server after that one was stopped."""

    def __init__(self, servers: Servers, number: int, names: Names) -> None:
        self.received: list[notification_pb2.Notification] = []
        self.arrived = asyncio.Event()
        self._servers = servers
        self._number = number
        self._names = names
        self._evaluations: dict[str, list[Notification]] = defaultdict(list)  # of each customer, with ids of alerts

    async def follow(self) -> None:
        """Reads until it is cancelled."""
        token = ""
        while True:
            caller = self._servers.caller(self._number)
            request = alert_service_pb2.WatchNotificationsRequest(resume_token=token)
            if not token:
                request.start_time.CopyFrom(to_timestamp(START))
            call = caller.alerts.WatchNotifications(request, metadata=caller.metadata)
            try:
                while isinstance(answer := await call.read(), Response):
                    token = answer.resume_token
                    if answer.HasField("notification"):
                        self._take(answer.notification)
            except grpc.aio.AioRpcError as error:
                if error.code() not in RETRIED:
                    raise
                await asyncio.sleep(RETRY_DELAY)
            except asyncio.CancelledError:
                if is_cancelled():
                    raise
                # The channel to a server that has stopped was closed.

    def _take(self, shown: notification_pb2.Notification) -> None:
        self.received.append(shown)
        if shown.HasField("evaluation"):
            found = notification_of(shown.alert_id, json.loads(shown.body)["data"])
            self._evaluations[shown.customer_id].append(found)
        self.arrived.set()

    def of(self, customer: str) -> dict[Place, list[Notification]]:
        """The notifications of evaluations of a customer."""
        found: dict[Place, list[Notification]] = {}
        for one in self._evaluations.get(customer, ()):
            name = self._names.of(one.alert)
            found.setdefault((name, one.gauge), []).append(replace(one, alert=name))
        return found

    @property
    def disabled(self) -> Counter[Notice]:
        """The notifications of disabled alerts."""
        return Counter(
            (self._names.of(one.alert_id), one.customer_id, one.alert_disabled.subscription_id)
            for one in self.received
            if one.HasField("alert_disabled")
        )
