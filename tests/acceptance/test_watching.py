"""Notification streams while servers are drained, killed and started again: each notification once, in order."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime

import grpc

from cli.client.connection import Address
from generated.tidemark.v1.alert_service_pb2 import WatchNotificationsRequest, WatchNotificationsResponse
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.notification_pb2 import Notification
from tests.support.processes import results
from tests.support.processes.following import following
from tests.support.processes.programs import DEADLINE, Programs, session, until
from tests.support.processes.results import ALERTS, SEATS
from tests.support.processes.traffic import progress, streaming

STORED = "SELECT notification_id, body FROM notification"


async def watch_to_the_end(address: Address, answers: list[WatchNotificationsResponse]) -> grpc.StatusCode:
    """Keeps every answer of one stream until it ends; returns how it ends."""
    async with address.channel() as channel:
        call = AlertServiceStub(channel).WatchNotifications(WatchNotificationsRequest(), metadata=address.metadata)
        while isinstance(answer := await call.read(), WatchNotificationsResponse):
            answers.append(answer)
        return await call.code()


def notifications(answers: Iterable[WatchNotificationsResponse]) -> list[Notification]:
    """Those of a stream."""
    return [answer.notification for answer in answers if answer.HasField("notification")]


async def test_notifications_arrive_exactly_once_while_servers_are_killed_and_drained(
    programs: Programs, database_url: str
) -> None:
    steady, shaky = await asyncio.gather(programs.serve("steady"), programs.serve("shaky"))
    await results.create(steady.address, *ALERTS, SEATS)
    now = datetime.now(UTC)
    async with following(steady.address) as undisturbed, following(shaky.address) as received:
        async with streaming(steady.address, 2, now) as clients, streaming(shaky.address, 1, now) as others:
            await progress([*clients, *others])
            await shaky.killed()
            await progress(clients)
            await shaky.start()
            await progress([*clients, *others])
            answers: list[WatchNotificationsResponse] = []
            watching = asyncio.create_task(watch_to_the_end(shaky.address, answers))
            await until(lambda: bool(notifications(answers)) or watching.done())
            assert not watching.done(), watching
            assert await shaky.stop() == 0
            async with asyncio.timeout(DEADLINE):
                assert await watching is grpc.StatusCode.OK
            assert answers[-1].going_away
            await progress(clients)
            await shaky.start()
            await progress([*clients, *others])
        async with session(database_url) as connection:
            stored = {str(row[0]): row[1] for row in await (await connection.execute(STORED)).fetchall()}
        await until(lambda: min(len(received), len(undisturbed)) >= len(stored))
        assert len(stored) > 20
        assert {one.notification_id: one.body for one in received} == stored
        assert received == undisturbed
    sequences: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for one in received:
        sequences[one.alert_id, json.dumps(json.loads(one.body)["data"]["gauge"])].append(one.sequence)
    assert all(found == list(range(1, len(found) + 1)) for found in sequences.values())

    # The notifications of the drained stream are a part of the same feed, and its last token resumes after them.
    brought = notifications(answers)
    begins = received.index(brought[0])
    rest = received[begins + len(brought) :]
    assert received[begins : begins + len(brought)] == brought
    async with following(steady.address, answers[-1].resume_token) as resumed:
        await until(lambda: len(resumed) >= len(rest))
        assert resumed == rest
    assert [await server.stop() for server in (steady, shaky)] == [0, 0]
    assert [server.complaints() for server in (steady, shaky)] == [[], []]
