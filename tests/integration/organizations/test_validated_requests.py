"""Every mutating method with validate_only, in an organization that has everything: nothing changes.

One organization sends the requests, and usage after each of them. Another one, in a database of its own, sends only
the usage. All rows stay the same during a request, and both organizations get the same answers to the usage.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
import pytest

from runtime.clock import ManualClock
from store.identity import keys
from store.postgres.database import Database
from tests.support.contract.methods import MUTATING, NOT_VALIDATED
from tests.support.databases import Template
from tests.support.organizations.side_by_side import ONE_SPEND_ALERT, StepCaller, known_ids, rows_of, settled
from tests.support.organizations.step import OURS
from tests.support.organizations.steps import READS
from tests.support.organizations.validated import POPULATION, VALIDATED, usage_after
from tests.support.server.running import running

NAMES = [step.name for step in VALIDATED]


@dataclass
class Played:
    """What one organization saw.

    answers: by validated step. changed: by validated step, the rows that differ before and after it. usage: the
    answers to the usage after each step. reads: the answers to the reads at the end.
    """

    answers: dict[str, str] = field(default_factory=dict)
    changed: dict[str, list[str]] = field(default_factory=dict)
    usage: dict[str, str] = field(default_factory=dict)
    reads: dict[str, str] = field(default_factory=dict)


async def play(database_url: str, *, validating: bool) -> Played:
    """Populates an organization, and sends the usage; validating: with the validated requests in between."""
    played = Played()
    clock = ManualClock(datetime(2026, 3, 15, 12, 0, tzinfo=UTC))
    async with AsyncExitStack() as stack:
        database = Database(database_url)
        stack.push_async_callback(database.close)
        async with database.transaction() as connection:
            ours = await keys.create_key(connection, "ours", clock.now())
        names = stack.enter_context(known_ids())
        server = await stack.enter_async_context(running(database, clock, engine_limits=ONE_SPEND_ALERT))
        observer = await stack.enter_async_context(
            await psycopg.AsyncConnection.connect(database_url, autocommit=True)
        )
        caller = StepCaller(server, ours.key, OURS, names)
        for step in POPULATION:
            answer = await caller.call(step)
            assert "ERROR_REASON" not in answer or step.name == "taken name", (step.name, answer)
            await settled(observer, database)
        for step in VALIDATED:
            if validating:
                before = await rows_of(observer)
                played.answers[step.name] = await caller.call(step)
                assert await caller.call(step) == played.answers[step.name]
                await settled(observer, database)
                played.changed[step.name] = sorted(set(before) ^ set(await rows_of(observer)))
            played.usage[step.name] = await caller.call(usage_after(step))
            await settled(observer, database)
        for step in READS:
            played.reads[step.name] = await caller.call(step)
    return played


@pytest.fixture(scope="module")
def played(template: Template) -> tuple[Played, Played]:
    """The organization that validates, and the one that does not."""

    async def both() -> tuple[Played, Played]:
        return (
            await play(template.fresh_database(), validating=True),
            await play(template.fresh_database(), validating=False),
        )

    return asyncio.run(both())


@pytest.mark.parametrize("step", NAMES)
def test_validated_request_is_answered_and_changes_no_row(played: tuple[Played, Played], step: str) -> None:
    validating, _ = played
    assert "ERROR_REASON" not in validating.answers[step]
    assert "secret" not in validating.answers[step]
    assert "replayed" not in validating.answers[step]
    assert validating.changed[step] == []


@pytest.mark.parametrize("step", NAMES)
def test_usage_after_a_validated_request_is_evaluated_as_without_it(played: tuple[Played, Played], step: str) -> None:
    validating, plain = played
    assert validating.usage[step] == plain.usage[step]


@pytest.mark.parametrize("step", [step.name for step in READS])
def test_reads_after_validated_requests_answer_as_without_them(played: tuple[Played, Played], step: str) -> None:
    validating, plain = played
    assert validating.reads[step] == plain.reads[step]


def test_every_mutating_method_is_validated_and_usage_reaches_thresholds(played: tuple[Played, Played]) -> None:
    assert {step.method for step in VALIDATED} == {method.name for method in MUTATING} - NOT_VALIDATED.keys()
    _, plain = played
    assert any("TRANSITION_KIND_REACHED" in answer for answer in plain.usage.values())
    assert all("rejected {" not in answer for answer in plain.usage.values())
