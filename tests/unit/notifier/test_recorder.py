"""When attempts of what was claimed with a batch of results begin: after the next batch is sent, or immediately."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from notifier.attempts import Attempter
from notifier.hints import Hints
from notifier.in_flight import InFlight
from notifier.late_bodies import LateBodies
from notifier.metrics import Metrics
from notifier.orphans import OrphanedLeases
from notifier.recorder import TRIES_ALONE, Recorder
from notifier.results import Result, Return
from notifier.slots import Slots
from store.deliveries import leases
from store.deliveries import results as delivery_results
from store.deliveries.claims import Claim, ClaimedEndpoint, ClaimRequest
from store.deliveries.results import AttemptRecord, Recorded
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import LOCK_TIMEOUT, unavailable
from webhooks.deliveries import AttemptOutcome, DeliveryStatus
from webhooks.health import HealthSignal


def a_claim(number: int, endpoint_id: str = "whe_1") -> Claim:
    endpoint = ClaimedEndpoint(1, endpoint_id, "https://example.com", (), (), None)
    return Claim(endpoint, f"whd_{number}", "ntf_1", uuid.uuid4(), "AUTOMATIC", 0, 0, timedelta(0), "{}")


def a_result(claim: Claim) -> AttemptRecord:
    return AttemptRecord(
        claim,
        datetime(2026, 11, 27, tzinfo=UTC),
        timedelta(0),
        AttemptOutcome.DELIVERED,
        204,
        "",
        "",
        DeliveryStatus.DELIVERED,
        None,
        HealthSignal.SUCCEEDED,
    )


class NoDatabase:
    losses = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield None


class NotedInFlight(InFlight):
    """What is in flight, without slots and attempts: a test is notified of what begins and what is finished."""

    def __init__(
        self,
        request: ClaimRequest | None,
        on_begin: Callable[[Claim], None] = lambda claim: None,
        on_finish: Callable[[Claim], None] = lambda claim: None,
    ) -> None:
        slots, hints = Slots(10, timedelta(seconds=60)), Hints()
        orphans = OrphanedLeases(cast(Database, NoDatabase()), slots.holdings, Metrics())
        super().__init__(slots, cast(Attempter, None), orphans, hints, LateBodies(cast(Database, NoDatabase())))
        self._request = request
        self._on_begin = on_begin
        self._on_finish = on_finish

    @contextmanager
    def reserve(self, done: Sequence[Claim] = ()) -> Iterator[ClaimRequest | None]:
        yield self._request

    def take(self, claims: Sequence[Claim]) -> None:
        pass

    def begin(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._on_begin(claim)

    def finish(self, done: Sequence[Claim], *, more_may_be_due: bool) -> None:
        for claim in done:
            self._on_finish(claim)


class Statements:
    """The statements that write results, answered by a test: `send` comes before the block, `answer` after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(delivery_results, "sending", self._sending)
        monkeypatch.setattr(delivery_results, "read_recorded", self._read_recorded)
        monkeypatch.setattr(leases, "release", self._release)

    async def send(self, records: Sequence[AttemptRecord]) -> None:
        """Raises what the statement raises."""

    async def answer(self, records: Sequence[AttemptRecord]) -> Recorded:
        return Recorded(list(records))

    async def release(self, claims: Sequence[Claim]) -> None:
        """Raises what the statement raises."""

    @asynccontextmanager
    async def _sending(
        self, _: Any, records: Sequence[AttemptRecord], __: Any
    ) -> AsyncIterator[Sequence[AttemptRecord]]:
        await self.send(records)
        yield records

    async def _read_recorded(self, _: Any, sent: Sequence[AttemptRecord], __: Any) -> Recorded:
        return await self.answer(sent)

    async def _release(self, _: Any, claims: Sequence[Claim], *, delay: timedelta) -> int:
        await self.release(claims)
        return len(claims)


class Desk(Statements):
    """A recorder whose statements a test answers: it notes what happens, in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.events: list[str] = []
        self._changed = asyncio.Event()
        self.fails = False
        self.next_claims: list[list[Claim]] = []
        request = ClaimRequest(10, timedelta(seconds=60))
        self.in_flight = NotedInFlight(request, on_begin=lambda claim: self._note(f"begin {claim.delivery_id}"))
        self.recorder = Recorder(cast(Database, NoDatabase()), self.in_flight, Metrics(), random.Random(0))

    def add(self, result: Result) -> None:
        self.in_flight.results.add(result)

    def _note(self, event: str) -> None:
        self.events.append(event)
        self._changed.set()

    async def send(self, records: Sequence[AttemptRecord]) -> None:
        if self.fails:
            self.fails = False
            self._note(f"lost {ids(records)}")
            raise DatabaseUnavailable("away")
        self._note(f"sent {ids(records)}")

    async def answer(self, records: Sequence[AttemptRecord]) -> Recorded:
        if len(self.events) == 1:
            self.add(a_result(a_claim(2)))  # it comes while the first batch is being written
        await asyncio.sleep(0)
        self._note(f"written {ids(records)}")
        return Recorded(list(records), self.next_claims.pop(0) if self.next_claims else [])

    async def run(self, last: str) -> None:
        """Lets the recorder write until that has happened."""
        running = asyncio.create_task(self.recorder.run())
        try:
            async with asyncio.timeout(10):
                while last not in self.events:
                    await self._changed.wait()
                    self._changed.clear()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def ids(records: Sequence[AttemptRecord]) -> str:
    return " ".join(record.claim.delivery_id for record in records)


async def test_attempts_begin_once_the_next_results_have_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)
    desk.next_claims = [[a_claim(3)], [a_claim(4)]]
    desk.add(a_result(a_claim(1)))
    await desk.run("begin whd_4")
    assert desk.events == [
        "sent whd_1",
        "written whd_1",
        "sent whd_2",
        "begin whd_3",
        "written whd_2",
        "begin whd_4",  # there is nothing more to write
    ]


async def test_attempts_begin_though_the_next_results_cannot_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)
    desk.next_claims = [[a_claim(3)]]
    desk.add(a_result(a_claim(1)))
    real = desk.answer

    async def then_away(records: Sequence[AttemptRecord]) -> Recorded:
        done = await real(records)
        desk.fails = len(desk.events) == 2
        return done

    monkeypatch.setattr(desk, "answer", then_away)
    await desk.run("written whd_2")
    assert desk.events == [
        "sent whd_1",
        "written whd_1",
        "lost whd_2",
        "begin whd_3",
        "sent whd_2",
        "written whd_2",
    ]


class Written(Statements):
    """A recorder over statements that fail as a test says: which results were written, and for which it let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self.statements: list[list[str]] = []
        self.failures: list[Exception | None] = []  # of the statements to come
        self.let_go: list[str] = []
        self.metrics = Metrics()
        self._changed = asyncio.Event()
        self.in_flight = NotedInFlight(None, on_finish=self._let_go)
        self.recorder = Recorder(cast(Database, NoDatabase()), self.in_flight, self.metrics, random.Random(0))

    def add(self, result: Result) -> None:
        self.in_flight.results.add(result)

    def _let_go(self, claim: Claim) -> None:
        self.let_go.append(claim.delivery_id)
        self._changed.set()

    def _note(self, ids: list[str]) -> None:
        self.statements.append(ids)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    async def send(self, records: Sequence[AttemptRecord]) -> None:
        self._note([record.claim.delivery_id for record in records])

    async def release(self, claims: Sequence[Claim]) -> None:
        self._note([claim.delivery_id for claim in claims])

    async def run(self, number: int) -> None:
        """Lets the recorder work until it has let go of so many results."""
        running = asyncio.create_task(self.recorder.run())
        try:
            async with asyncio.timeout(10):
                while len(self.let_go) < number:
                    await self._changed.wait()
                    self._changed.clear()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


REFUSED, AWAY = ValueError("refused"), DatabaseUnavailable("away")


async def test_what_was_written_alone_is_not_written_again_when_the_database_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = Written(monkeypatch)
    written.failures = [REFUSED, None, AWAY]
    for number in (1, 2, 3):
        written.add(a_result(a_claim(number)))
    await written.run(3)
    assert written.statements == [
        ["whd_1", "whd_2", "whd_3"],  # refused
        ["whd_1"],
        ["whd_2"],  # the database is lost
        ["whd_2", "whd_3"],
    ]
    assert sorted(written.let_go) == ["whd_1", "whd_2", "whd_3"]
    assert len(written.in_flight.results) == 0


async def test_a_result_given_up_is_not_tried_again_when_the_database_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = Written(monkeypatch)
    written.failures = [REFUSED, *[REFUSED] * TRIES_ALONE, AWAY]
    for number in (1, 2):
        written.add(a_result(a_claim(number)))
    await written.run(2)
    assert written.statements == [["whd_1", "whd_2"], *[["whd_1"]] * TRIES_ALONE, ["whd_2"], ["whd_2"]]
    assert written.let_go == ["whd_1", "whd_2"]


@pytest.mark.parametrize("failure", [AWAY, REFUSED])
async def test_results_are_off_the_list_though_the_claims_beside_them_cannot_be_given_back(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    written = Written(monkeypatch)
    written.failures = [None, failure]
    written.add(a_result(a_claim(1)))
    written.add(Return(a_claim(2), timedelta(0)))
    await written.run(2)
    assert written.statements == [["whd_1"], ["whd_2"], ["whd_2"]]
    assert sorted(written.let_go) == ["whd_1", "whd_2"]
    assert written.metrics.claims_returned == 1
    assert written.metrics.results_fenced == 0


async def test_a_locked_endpoint_keeps_back_its_own_results_only(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)
    locked, tries, real = True, 0, desk.send

    async def send(records: Sequence[AttemptRecord]) -> None:
        nonlocal locked, tries
        if locked and any(record.claim.endpoint_id == "whe_locked" for record in records):
            tries += 1
            # Each time the batch and then one of the two results, while the others are written.
            locked = tries < 4
            raise unavailable(LOCK_TIMEOUT)
        await real(records)

    monkeypatch.setattr(desk, "send", send)
    for number, endpoint_id in ((5, "whe_locked"), (6, "whe_locked"), (7, "whe_free"), (8, "whe_other")):
        desk.add(a_result(a_claim(number, endpoint_id)))
    await desk.run("written whd_5 whd_6")
    assert [event for event in desk.events if event.startswith("written")] == [
        "written whd_7",
        "written whd_8",
        "written whd_2",  # came meanwhile
        "written whd_5 whd_6",
    ]
    assert tries == 4
    assert len(desk.in_flight.results) == 0
