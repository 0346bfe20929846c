"""A client that follows the notifications of a server that runs as a process."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from cli.client.connection import Address
from generated.tidemark.v1.alert_service_pb2 import WatchNotificationsRequest
from generated.tidemark.v1.notification_pb2 import Notification
from tests.support.processes.programs import until
from tidemark_client.watch.stream import NotificationStream


@asynccontextmanager
async def following(
    address: Address, token: str = "", *, since: datetime | None = None
) -> AsyncIterator[list[Notification]]:
    """The notifications of a client that resumes its stream; the client ends at the end of the block.

    since: without a token, also those from this time on.
    """
    request = WatchNotificationsRequest(resume_token=token)
    if since is not None:
        request.start_time.FromDatetime(since)
    received: list[Notification] = []
    async with address.channel() as channel:
        follower = NotificationStream(channel, address.metadata, request)

        async def follow() -> None:
            async for notification in follower.notifications():
                received.append(notification)

        task = asyncio.create_task(follow())
        try:
            await until(lambda: bool(follower.resume_token))
            yield received
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def followed(feed: Sequence[Notification], written: Mapping[str, str]) -> None:
    """Waits until the feed has each written notification once, those of an alert and a gauge in order.

    written: the bodies by id.
    """
    await until(lambda: len(feed) >= len(written), "notifications in the feed")
    assert {one.notification_id: one.body for one in feed} == written
    assert len(feed) == len(written)
    sequences: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for one in feed:
        data = json.loads(one.body)["data"]
        sequences[one.alert_id, data["customer_id"], json.dumps(data["gauge"])].append(one.sequence)
    assert all(found == list(range(1, len(found) + 1)) for found in sequences.values())
