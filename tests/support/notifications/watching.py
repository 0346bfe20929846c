"""A subscriber of the watch stream, and transactions that write notifications and commit when the test says so."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import grpc

from evaluator.alerts import AlertRule, ConditionType, Scope, ScopeKind
from evaluator.gauges import Gauge, Measure
from evaluator.notifications import Notification
from evaluator.periods import Period
from evaluator.thresholds import Direction, Threshold, ThresholdSet, TransitionKind
from evaluator.transitions import Transition
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import notification_pb2
from store.notifications.writing import write_notifications
from store.postgres import sessions
from store.postgres.database import Database, DriverConnection
from store.postgres.pooled_connection import PooledConnection
from tests.support.usage.caller import Caller
from tests.support.waiting import within

Response = messages.WatchNotificationsResponse


class Subscriber:
    """One stream. tokens: the resume tokens of received notifications, in order. token: that of the last answer."""

    def __init__(self, caller: Caller, **request: Any) -> None:
        self.tokens: list[str] = []
        self.token = ""
        self.call = caller.alerts.WatchNotifications(
            messages.WatchNotificationsRequest(**request), metadata=caller.metadata
        )

    async def answer(self) -> Response | None:
        """The next answer of any kind; None at the end of the call."""
        async with within("an answer of the stream"):
            answer = await self.call.read()
        if not isinstance(answer, Response):
            return None
        assert answer.resume_token
        assert [answer.HasField("notification"), answer.heartbeat, answer.going_away].count(True) == 1
        self.token = answer.resume_token
        return answer

    async def begun(self) -> "Subscriber":
        """Waits for the first answer, which is a heartbeat."""
        answer = await self.answer()
        assert answer is not None
        assert answer.heartbeat
        return self

    async def next(self) -> notification_pb2.Notification:
        """The next notification; heartbeats before it are skipped."""
        async with within(f"a notification after {len(self.tokens)}"):
            while True:
                answer = await self.answer()
                assert answer is not None, "the stream ended"
                assert not answer.going_away
                if answer.HasField("notification"):
                    self.tokens.append(answer.resume_token)
                    return answer.notification

    async def take(self, number: int) -> list[notification_pb2.Notification]:
        """The next notifications."""
        return [await self.next() for _ in range(number)]

    async def heartbeat(self) -> str:
        """The token of the next answer, which is a heartbeat."""
        answer = await self.answer()
        assert answer is not None
        assert answer.heartbeat, answer
        return answer.resume_token

    async def heartbeat_after(self, token: str) -> str:
        """The token of the next heartbeat with another token than this; only heartbeats may arrive."""
        async with within("a heartbeat with another token"):
            while (found := await self.heartbeat()) == token:
                pass
        return found

    async def refused(self) -> grpc.aio.AioRpcError:
        """The error that the call ends with."""
        try:
            async with within("the refusal of the call"):
                while await self.answer() is not None:
                    pass
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("the call was not refused")


async def watch(caller: Caller, **request: Any) -> Subscriber:
    """A stream that has begun."""
    return await Subscriber(caller, **request).begun()


class Committer:
    """A transaction that writes notifications step by step."""

    def __init__(self, caller: Caller, connection: DriverConnection, organization_id: int) -> None:
        self._caller = caller
        self.connection = connection
        self._organization_id = organization_id

    async def takes_a_transaction_id(self) -> None:
        """Writes something, as an ingest does when it stores its events."""
        await self.connection.execute("SELECT pg_current_xact_id()")

    async def notifies(self, *names: tuple[str, int], alert_id: str = "alt_1") -> None:
        """Writes notifications of these customers with these sequences."""
        now = self._caller.clock.now()
        threshold = Threshold(Decimal(1))
        rule = AlertRule(
            alert_id=alert_id,
            display_name="usage",
            version=1,
            condition_type=ConditionType.USAGE_THRESHOLD_REACHED,
            scope=Scope(ScopeKind.ALL_CUSTOMERS),
            measure=Measure(metric_id="calls"),
            groups=(),
            thresholds=ThresholdSet.of((threshold,), Direction.RISING),
            evaluate_on_create=True,
            changed_epoch=1,
            watching_epoch=1,
            watching_time=now,
        )
        found = Transition(
            TransitionKind.REACHED, threshold, threshold.value, Decimal(0), Decimal(1), None, True, True
        )
        first = Notification(self._caller.organization, rule, _gauge(rule, "", now.year), 1, now, False, (found,))
        await write_notifications(
            self.connection,
            self._organization_id,
            [
                replace(first, gauge=_gauge(rule, customer, now.year), sequence=sequence)
                for customer, sequence in names
            ],
            now,
        )

    async def holds_the_feed(self) -> None:
        """Holds the lock for assigning positions until the transaction ends."""
        await self.connection.execute(
            "SELECT FROM feed WHERE organization_id = %s FOR UPDATE", (self._organization_id,)
        )

    async def rolls_back(self) -> None:
        """Rolls back; the next statement begins another transaction."""
        await self.connection.rollback()

    async def commits(self) -> None:
        """Commits; the next statement begins another transaction."""
        await self.connection.commit()


@asynccontextmanager
async def committer(caller: Caller, url: str = "") -> AsyncIterator[Committer]:
    """A connection of the test's own, whose transaction is open until it commits.

    url: of the database on another node of a cluster than the caller's.
    """
    [[organization_id]] = await caller.rows("SELECT %(organization_id)s::bigint")
    async with await PooledConnection.connect(url or caller.database_url) as connection:
        await sessions.prepare(connection)
        yield Committer(caller, connection, organization_id)


def _gauge(rule: AlertRule, customer: str, year: int) -> Gauge:
    period = Period(datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))
    return Gauge(customer, None, rule.measure, (), period)


def names(notifications: Iterable[notification_pb2.Notification]) -> list[tuple[str, int]]:
    """Customers and sequences."""
    return [(one.customer_id, one.sequence) for one in notifications]


async def notify(caller: Caller, *notifications: tuple[str, int], alert_id: str = "alt_1") -> None:
    """Commits notifications."""
    async with committer(caller) as writer:
        await writer.notifies(*notifications, alert_id=alert_id)
        await writer.commits()


@asynccontextmanager
async def pool(caller: Caller) -> AsyncIterator[Database]:
    """Connections of the test's own."""
    database = Database(caller.database_url, pool_size=1)
    yield database
    await database.close()
