"""When the attempts of what was claimed with a batch of results begin: with the next batch on its way, or at once."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from notifier.metrics import Metrics
from notifier.recorder import TRIES_ALONE, Recorder, Refill, Return
from store.deliveries import results as delivery_results
from store.deliveries.queue import Claim, Order, Target
from store.deliveries.results import AttemptRecord, Recorded
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import LOCK_TIMEOUT, unavailable
from webhooks.deliveries import DeliveryStatus, Outcome
from webhooks.health import Verdict


def a_claim(number: int, endpoint_id: str = "whe_1") -> Claim:
    target = Target(1, endpoint_id, "https://example.com", (), (), None)
    return Claim(target, f"whd_{number}", "ntf_1", uuid.uuid4(), "AUTOMATIC", 0, 0, timedelta(0), "{}")


def a_result(claim: Claim) -> AttemptRecord:
    return AttemptRecord(
        claim,
        datetime(2026, 11, 27, tzinfo=UTC),
        timedelta(0),
        Outcome.DELIVERED,
        204,
        "",
        "",
        DeliveryStatus.DELIVERED,
        None,
        Verdict.SUCCEEDED,
    )


class NoDatabase:
    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield None


class Desk:
    """A recorder whose statements a test answers: it notes what happens, in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self._changed = asyncio.Event()
        self.fails = False
        self.next_claims: list[list[Claim]] = []
        self.recorder = Recorder(
            cast(Database, NoDatabase()),
            lambda done: nullcontext(Order(10, timedelta(seconds=60))),
            lambda done, refill: None,
            self._begin,
            lambda: 0,
            lambda error: None,
            Metrics(),
            random.Random(0),
        )
        monkeypatch.setattr(delivery_results, "record", self._record)

    def _begin(self, claims: Sequence[Claim]) -> None:
        for claim in claims:
            self._note(f"begin {claim.delivery_id}")

    def _note(self, event: str) -> None:
        self.events.append(event)
        self._changed.set()

    async def _record(
        self, _: Any, records: list[AttemptRecord], __: Any, ___: Any, meanwhile: Callable[[], None]
    ) -> Recorded:
        ids = " ".join(record.claim.delivery_id for record in records)
        if self.fails:
            self.fails = False
            self._note(f"lost {ids}")
            raise DatabaseUnavailable("away")
        self._note(f"sent {ids}")
        meanwhile()
        if len(self.events) == 1:
            self.recorder.add(a_result(a_claim(2)))  # it comes while the first batch is being written
        await asyncio.sleep(0)
        self._note(f"written {ids}")
        return Recorded(records, self.next_claims.pop(0) if self.next_claims else [])

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


async def test_attempts_begin_once_the_next_results_have_been_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)
    desk.next_claims = [[a_claim(3)], [a_claim(4)]]
    desk.recorder.add(a_result(a_claim(1)))
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
    desk.recorder.add(a_result(a_claim(1)))
    real = desk._record

    async def then_away(*arguments: Any) -> Recorded:
        done = await real(*arguments)
        desk.fails = len(desk.events) == 2
        return done

    monkeypatch.setattr(delivery_results, "record", then_away)
    await desk.run("written whd_2")
    assert desk.events == [
        "sent whd_1",
        "written whd_1",
        "lost whd_2",
        "begin whd_3",
        "sent whd_2",
        "written whd_2",
    ]


class Written:
    """A recorder over statements that fail as a test says: which results were written, and for which it let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: list[list[str]] = []
        self.failures: list[Exception | None] = []  # of the statements to come
        self.let_go: list[str] = []
        self.metrics = Metrics()
        self._changed = asyncio.Event()
        self.recorder = Recorder(
            cast(Database, NoDatabase()),
            lambda done: nullcontext(None),
            self._on_written,
            lambda claims: None,
            lambda: 0,
            lambda error: None,
            self.metrics,
            random.Random(0),
        )
        monkeypatch.setattr(delivery_results, "record", self._record)
        monkeypatch.setattr(delivery_results, "release", self._release)

    def _on_written(self, done: Sequence[Claim], refill: Refill | None) -> None:
        self.let_go += [claim.delivery_id for claim in done]
        self._changed.set()

    def _note(self, ids: list[str]) -> None:
        self.statements.append(ids)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure

    async def _record(self, _: Any, records: list[AttemptRecord], *__: Any) -> Recorded:
        self._note([record.claim.delivery_id for record in records])
        return Recorded(records)

    async def _release(self, _: Any, claims: list[Claim], *, delay: timedelta) -> int:
        self._note([claim.delivery_id for claim in claims])
        return len(claims)

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
        written.recorder.add(a_result(a_claim(number)))
    await written.run(3)
    assert written.statements == [
        ["whd_1", "whd_2", "whd_3"],  # refused
        ["whd_1"],
        ["whd_2"],  # the database is lost
        ["whd_2", "whd_3"],
    ]
    assert sorted(written.let_go) == ["whd_1", "whd_2", "whd_3"]
    assert written.recorder.waiting == 0


async def test_a_result_given_up_is_not_tried_again_when_the_database_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = Written(monkeypatch)
    written.failures = [REFUSED, *[REFUSED] * TRIES_ALONE, AWAY]
    for number in (1, 2):
        written.recorder.add(a_result(a_claim(number)))
    await written.run(2)
    assert written.statements == [["whd_1", "whd_2"], *[["whd_1"]] * TRIES_ALONE, ["whd_2"], ["whd_2"]]
    assert written.let_go == ["whd_1", "whd_2"]


@pytest.mark.parametrize("failure", [AWAY, REFUSED])
async def test_results_are_off_the_list_though_the_claims_beside_them_cannot_be_given_back(
    monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    written = Written(monkeypatch)
    written.failures = [None, failure]
    written.recorder.add(a_result(a_claim(1)))
    written.recorder.add(Return(a_claim(2), timedelta(0)))
    await written.run(2)
    assert written.statements == [["whd_1"], ["whd_2"], ["whd_2"]]
    assert sorted(written.let_go) == ["whd_1", "whd_2"]
    assert written.metrics.claims_returned == 1
    assert written.metrics.results_fenced == 0


async def test_a_locked_endpoint_keeps_back_its_own_results_only(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(monkeypatch)
    locked, tries, real = True, 0, desk._record

    async def record(_: Any, records: list[AttemptRecord], *others: Any) -> Recorded:
        nonlocal locked, tries
        if locked and any(record.claim.endpoint_id == "whe_locked" for record in records):
            tries += 1
            # Each time the batch and then one of the two results, while the others are written.
            locked = tries < 4
            raise unavailable(LOCK_TIMEOUT)
        return await real(_, records, *others)

    monkeypatch.setattr(delivery_results, "record", record)
    for number, endpoint_id in ((5, "whe_locked"), (6, "whe_locked"), (7, "whe_free"), (8, "whe_other")):
        desk.recorder.add(a_result(a_claim(number, endpoint_id)))
    await desk.run("written whd_5 whd_6")
    assert [event for event in desk.events if event.startswith("written")] == [
        "written whd_7",
        "written whd_8",
        "written whd_2",  # came meanwhile
        "written whd_5 whd_6",
    ]
    assert tries == 4
    assert desk.recorder.waiting == 0
