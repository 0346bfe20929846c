"""Changes of alerts that wait at the same time: they share a transaction, and each call gets its own answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
import psycopg
import pytest

from engine.changes.group import ChangeGroup
from engine.changes.groups import ChangeGroups
from evaluator.definitions import MAX_SPEND_ALERTS
from generated.tidemark.v1 import alert_pb2, condition_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import ManualClock
from tests.support.postgres.lock_waits import END_WAITING_SESSIONS
from tests.support.server.running import reason_of
from tests.support.usage.caller import (
    DEADLINE,
    Caller,
    beside,
    on_customer,
    on_subscription,
    thresholds,
    until,
    usage_alert,
    waiting_for_locks,
)
from tests.support.usage.organizations import organization

CALLERS = 16
ORGANIZATION_LOCK = 0x7469  # the first half of every organization's advisory lock

Answer = TypeVar("Answer")
Call = Coroutine[Any, Any, Answer]


class Queue:
    """The changes that wait for a group, at all servers of a test; it can keep the groups of an organization waiting.

    They do not wait for a lock, because such a wait ends after 3 seconds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count = 0
        self._held: dict[int, asyncio.Event] = {}
        made, run = ChangeGroups._made, ChangeGroup.run  # all changes, and all groups, go through these methods

        def counted(groups: ChangeGroups, *arguments: Any) -> Awaitable[Any]:
            self._count += 1
            return made(groups, *arguments)

        async def held(group: ChangeGroup) -> float:
            if (released := self._held.get(group._organization_id)) is not None:
                await released.wait()
            return await run(group)

        monkeypatch.setattr(ChangeGroups, "_made", counted)
        monkeypatch.setattr(ChangeGroup, "run", held)

    @asynccontextmanager
    async def held(self, organization_id: int) -> AsyncIterator[None]:
        """Keeps the groups of an organization waiting inside the block."""
        released = self._held[organization_id] = asyncio.Event()
        try:
            yield
        finally:
            del self._held[organization_id]
            released.set()

    async def add(self, *calls: Call[Answer]) -> list[asyncio.Task[Answer]]:
        """Starts calls, one after the other; each has joined the queue before the next one starts."""
        tasks = []
        for call in calls:
            before = self._count
            tasks.append(asyncio.create_task(call))

            async def joined(before: int = before) -> bool:
                return self._count > before

            await until(joined)
        return tasks


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    return Queue(monkeypatch)


@asynccontextmanager
async def held(caller: Caller, queue: Queue) -> AsyncIterator[None]:
    """Keeps the group of a first change waiting inside the block, so that the changes that follow form a group."""
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    async with queue.held(organization_id):
        [first] = await queue.add(created(caller, usage_alert("1")))
        yield
    await first


async def created(caller: Caller, alert: alert_pb2.Alert, **fields: Any) -> messages.CreateAlertResponse:
    request = messages.CreateAlertRequest(alert=alert, **fields)
    return await caller.alerts.CreateAlert(request, metadata=caller.metadata, timeout=DEADLINE)


async def updated(caller: Caller, alert_id: str, name: str, etag: str = "") -> messages.UpdateAlertResponse:
    alert = alert_pb2.Alert(alert_id=alert_id, display_name=name, etag=etag)
    request = messages.UpdateAlertRequest(alert=alert)
    return await caller.alerts.UpdateAlert(request, metadata=caller.metadata, timeout=DEADLINE)


async def archived(caller: Caller, alert_id: str) -> messages.ArchiveAlertResponse:
    request = messages.ArchiveAlertRequest(alert_id=alert_id)
    return await caller.alerts.ArchiveAlert(request, metadata=caller.metadata, timeout=DEADLINE)


async def switched(caller: Caller, method: str, alert_id: str, **target: Any) -> Any:
    """Calls EnableAlert or DisableAlert."""
    request = getattr(messages, f"{method}AlertRequest")(alert_id=alert_id, **target)
    return await getattr(caller.alerts, f"{method}Alert")(request, metadata=caller.metadata, timeout=DEADLINE)


async def outcomes(tasks: list[asyncio.Task[Answer]]) -> list[Answer | str]:
    """The answer of each call, or the reason of its error."""
    done = list[Answer | str]()
    for one in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(one, grpc.aio.AioRpcError):
            done.append(reason_of(one))
        else:
            assert not isinstance(one, BaseException), one
            done.append(one)
    return done


def named(name: str, key: str = "") -> alert_pb2.Alert:
    """An alert of one customer."""
    alert = usage_alert("10", scope=on_customer(f"of {name}"))
    alert.display_name, alert.uniqueness_key = name, key
    return alert


async def epochs(caller: Caller) -> dict[str, int]:
    """The epoch of the last change of each alert, by name."""
    return dict(
        await caller.rows("SELECT name, changed_epoch FROM alert WHERE organization_id = %(organization_id)s")
    )


async def current_epoch(caller: Caller) -> int:
    [[epoch]] = await caller.rows("SELECT epoch FROM organization WHERE organization_id = %(organization_id)s")
    return int(epoch)


async def test_creations_at_the_same_time_share_an_epoch(caller: Caller, queue: Queue) -> None:
    async with held(caller, queue):
        tasks = await queue.add(*(created(caller, named(f"n{number}")) for number in range(CALLERS)))
    answers = await asyncio.gather(*tasks)
    assert [one.alert.display_name for one in answers] == [f"n{number}" for number in range(CALLERS)]
    assert len({one.alert.alert_id for one in answers}) == CALLERS
    # Each warns about its own customer.
    assert [answer.warnings[0].unknown_id for answer in answers] == [f"of n{number}" for number in range(CALLERS)]
    stored = await epochs(caller)
    # The other one is that of the change that kept them waiting.
    assert len(set(stored.values())) <= 2
    history = await caller.rows("SELECT kind, version FROM alert_change WHERE organization_id = %(organization_id)s")
    assert history == [("CREATED", 1)] * (CALLERS + 1)


async def test_one_of_two_creations_with_a_key_in_a_group_is_refused_and_no_neighbour(
    caller: Caller, queue: Queue
) -> None:
    async with held(caller, queue):
        tasks = await queue.add(
            created(caller, named("a")),
            created(caller, named("first", "k")),
            created(caller, named("second", "k")),
            created(caller, named("b")),
        )
    a, first, second, b = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, messages.CreateAlertResponse)
    assert isinstance(second, grpc.aio.AioRpcError)
    assert (second.code(), reason_of(second)) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "ERROR_REASON_UNIQUENESS_KEY_TAKEN",
    )
    assert first.alert.alert_id in (second.details() or "")
    assert isinstance(a, messages.CreateAlertResponse)
    assert isinstance(b, messages.CreateAlertResponse)
    assert set(await epochs(caller)) == {"usage", "a", "first", "b"}


async def test_creations_above_the_maximum_are_refused_one_by_one(caller: Caller, queue: Queue) -> None:
    def spend(number: int) -> alert_pb2.Alert:
        condition = condition_pb2.SpendExceededCondition(currency=f"UNIT{number}")
        return alert_pb2.Alert(
            display_name=f"spend {number}",
            scope=on_subscription("s1"),
            spend_exceeded=condition,
            thresholds=thresholds("10"),
        )

    requests = [messages.CreateAlertRequest(alert=spend(number)) for number in range(MAX_SPEND_ALERTS - 1)]
    await caller.alerts.BatchCreateAlerts(
        messages.BatchCreateAlertsRequest(requests=requests), metadata=caller.metadata, timeout=DEADLINE
    )
    async with held(caller, queue):
        tasks = await queue.add(
            created(caller, named("a")),
            *(created(caller, spend(number)) for number in range(100, 103)),
            created(caller, named("b")),
        )
    done = await outcomes(tasks)
    assert [one for one in done if isinstance(one, str)] == ["ERROR_REASON_TOO_MANY_ALERTS"] * 2
    assert {"a", "b", "spend 100"} <= set(await epochs(caller))


@pytest.mark.parametrize("archives_first", [False, True])
async def test_an_edit_and_an_archive_of_one_alert_in_a_group_are_made_in_their_order(
    caller: Caller, queue: Queue, archives_first: bool
) -> None:
    alert_id = (await created(caller, named("a"))).alert.alert_id
    async with held(caller, queue):
        calls: list[Call[Any]] = [updated(caller, alert_id, "edited"), archived(caller, alert_id)]
        tasks = await queue.add(*(reversed(calls) if archives_first else calls))
    first, second = await outcomes(tasks)
    assert not isinstance(first, str)
    if archives_first:
        assert second == "ERROR_REASON_ALERT_ARCHIVED"
        assert first.alert.version == 2
    else:
        assert not isinstance(second, str)
        assert (first.alert.display_name, first.alert.version) == ("edited", 2)
        assert (second.alert.display_name, second.alert.version) == ("edited", 3)
    [[state]] = await caller.rows("SELECT state FROM alert WHERE alert_id = %(alert_id)s", alert_id=alert_id)
    assert state == "ARCHIVED"


async def test_the_second_of_two_edits_of_one_version_in_a_group_is_aborted(caller: Caller, queue: Queue) -> None:
    alert_id = (await created(caller, named("a"))).alert.alert_id
    async with held(caller, queue):
        tasks = await queue.add(updated(caller, alert_id, "one", "1"), updated(caller, alert_id, "two", "1"))
    first, second = await outcomes(tasks)
    assert isinstance(first, messages.UpdateAlertResponse)
    assert second == "ERROR_REASON_ETAG_MISMATCH"


async def test_tries_of_one_request_in_a_group_create_one_alert(caller: Caller, queue: Queue) -> None:
    async with held(caller, queue):
        tasks = await queue.add(
            *(created(caller, named("a"), request_id="r") for _ in range(4)),
            created(caller, named("other"), request_id="r"),
            created(caller, named("b"), request_id="s"),
        )
    *tries, other, b = await outcomes(tasks)
    answers = [one for one in tries if isinstance(one, messages.CreateAlertResponse)]
    assert [one.replayed for one in answers] == [False, True, True, True]
    assert len({one.alert.alert_id for one in answers}) == 1
    assert other == "ERROR_REASON_REQUEST_ID_REUSED"
    assert isinstance(b, messages.CreateAlertResponse)
    again = await created(caller, named("a"), request_id="r")
    assert (again.replayed, again.alert) == (True, answers[0].alert)
    assert sorted(await epochs(caller)) == ["a", "b", "usage"]


async def test_tries_of_one_batch_at_the_same_time_create_its_alerts_once(caller: Caller, queue: Queue) -> None:
    batch = messages.BatchCreateAlertsRequest(
        requests=[messages.CreateAlertRequest(alert=named(f"n{number}")) for number in range(3)], request_id="r"
    )

    async def create() -> messages.BatchCreateAlertsResponse:
        return await caller.alerts.BatchCreateAlerts(batch, metadata=caller.metadata, timeout=DEADLINE)

    async with held(caller, queue):
        tasks = await queue.add(create(), create(), create())
    answers = await asyncio.gather(*tasks)
    assert [one.replayed for one in answers] == [False, True, True]
    assert len({tuple(one.alert_id for one in answer.alerts) for answer in answers}) == 1
    assert len(await epochs(caller)) == 4


async def test_a_caller_that_cancels_while_it_waits_creates_nothing(caller: Caller, queue: Queue) -> None:
    async with held(caller, queue):
        gone, stays = await queue.add(created(caller, named("gone")), created(caller, named("stays")))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        # The server has noticed that the caller is gone when it answers a later call on the same connection.
        await caller.alerts.ListAlerts(messages.ListAlertsRequest(), metadata=caller.metadata, timeout=DEADLINE)
    await stays
    assert set(await epochs(caller)) == {"usage", "stays"}


async def test_a_call_whose_deadline_ends_while_it_waits_leaves_its_neighbours(caller: Caller, queue: Queue) -> None:
    async def short() -> messages.CreateAlertResponse:
        request = messages.CreateAlertRequest(alert=named("short"))
        return await caller.alerts.CreateAlert(request, metadata=caller.metadata, timeout=1.0)

    async with held(caller, queue):
        late, stays = await queue.add(short(), created(caller, named("stays")))
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await late
        assert refusal.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await stays
    assert "stays" in await epochs(caller)


async def test_a_group_whose_session_ends_fails_its_calls_and_stores_nothing(caller: Caller, queue: Queue) -> None:
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s")
    async with await psycopg.AsyncConnection.connect(caller.database_url, autocommit=True) as connection:
        await connection.execute("SELECT pg_advisory_lock_shared(%s, %s)", (ORGANIZATION_LOCK, organization_id))
        calls = await queue.add(*(created(caller, named(name)) for name in ("lost", "a", "b")))
        await waiting_for_locks(caller)
        await connection.execute(END_WAITING_SESSIONS.encode())
        done = await asyncio.gather(*calls, return_exceptions=True)
    # On a busy machine, the first group can end at the limit of a wait for a lock, and its call joins the others.
    failed = [one for one in done if isinstance(one, grpc.aio.AioRpcError)]
    assert failed
    assert {one.code() for one in failed} == {grpc.StatusCode.UNAVAILABLE}
    answered = {one.alert.display_name for one in done if isinstance(one, messages.CreateAlertResponse)}
    assert set(await epochs(caller)) == answered
    await created(caller, named("after"))


async def test_changes_at_two_servers_exclude_each_other(caller: Caller) -> None:
    async with beside(caller) as other:
        for number in range(5):
            key = f"k{number}"
            tasks = [
                asyncio.create_task(created(server, named(f"{key} {place}", key)))
                for place, server in enumerate([caller, other] * 4)
            ]
            done = await outcomes(tasks)
            assert done.count("ERROR_REASON_UNIQUENESS_KEY_TAKEN") == len(done) - 1
    assert len(await epochs(caller)) == 5


async def test_changes_of_an_organization_do_not_wait_for_those_of_another(
    caller: Caller, queue: Queue, clock: ManualClock
) -> None:
    name, key = await organization(caller.database_url, clock)
    theirs = Caller(caller.server, clock, caller.database_url, name, key)
    async with held(caller, queue):
        ours = await queue.add(created(caller, named("ours")))
        await created(theirs, named("theirs"))
        assert not ours[0].done()
    await asyncio.gather(*ours)
    assert set(await epochs(theirs)) == {"theirs"}


async def test_an_alert_notifies_each_time_it_is_disabled_in_a_group(caller: Caller, queue: Queue) -> None:
    alert_id = (await created(caller, named("a"))).alert.alert_id
    await caller.backfilled(alert_id)
    target = {"alert_id": alert_id}
    async with held(caller, queue):
        tasks = await queue.add(switched(caller, "Disable", **target))
        tasks += await queue.add(updated(caller, alert_id, "renamed"))
    await asyncio.gather(*tasks)
    await switched(caller, "Enable", **target)
    await switched(caller, "Disable", **target)
    disabled = [one for one in await caller.notifications() if one.event_type == "alert.disabled"]
    assert len({one.notification_id for one in disabled}) == 2


async def test_switching_an_alert_for_a_customer_without_effect_raises_no_epoch(caller: Caller) -> None:
    alert_id = (await created(caller, usage_alert("10"))).alert.alert_id
    await caller.send(caller.event("e1"))
    before = await current_epoch(caller)
    await switched(caller, "Enable", alert_id, customer_id="acme")
    assert await current_epoch(caller) == before
    await switched(caller, "Disable", alert_id, customer_id="acme")
    assert await current_epoch(caller) == before + 1
    await switched(caller, "Disable", alert_id, customer_id="acme")
    assert await current_epoch(caller) == before + 1
    await switched(caller, "Enable", alert_id, customer_id="acme", validate_only=True)
    assert await current_epoch(caller) == before + 1
    await switched(caller, "Enable", alert_id, customer_id="acme")
    assert await current_epoch(caller) == before + 2


async def test_requests_that_only_validate_in_a_group_store_nothing(caller: Caller, queue: Queue) -> None:
    async with held(caller, queue):
        tasks = await queue.add(
            created(caller, named("validated", "k"), validate_only=True, request_id="r"),
            created(caller, named("kept", "k")),
            created(caller, named("too late", "k"), validate_only=True),
        )
    validated, kept, late = await outcomes(tasks)
    assert isinstance(validated, messages.CreateAlertResponse)
    assert isinstance(kept, messages.CreateAlertResponse)
    assert late == "ERROR_REASON_UNIQUENESS_KEY_TAKEN"
    assert set(await epochs(caller)) == {"usage", "kept"}
    # The answer to a validated request is not stored under its id.
    assert (await created(caller, named("r"), request_id="r")).replayed is False
