"""Every method that changes something leaves an entry of the audit log, and none when it is repeated."""

import asyncio
from datetime import UTC, datetime

import psycopg
import pytest

from proto.documents.contract import METHODS
from runtime.clock import ManualClock
from server.authentication.access import ACCESS
from store.audit import log, numbering
from store.audit.log import AuditFilter, StoredEntry
from store.identity import keys
from store.identity.roles import Role
from store.postgres.database import Database
from tests.support.contract.methods import MUTATING
from tests.support.databases import Template
from tests.support.organizations.side_by_side import ONE_SPEND_ALERT, StepCaller, known_ids, settled
from tests.support.organizations.step import OURS, Step
from tests.support.organizations.validated import POPULATION, VALIDATED
from tests.support.server.running import running

# Requests that change nothing after others of the list, with what makes them change something.
OTHER = {
    "validated changes of alerts": ('value: "13"', 'value: "14"'),
    "validated archived alerts": ("alt_usage", "alt_spend"),
}
# Requests that others of the list would keep from changing anything, and those after which others are refused.
FIRST = ("validated delete plan",)
LAST = (
    "validated disabled alert for ann",
    "validated disabled alert",
    "validated archived alert",
    "validated archived alerts",
    "validated released key",
    "validated delete recharge policy",
    "validated void of a balance",
    "validated disabled endpoint",
    "validated delete endpoint",
    "validated delete customer",
)
# What is requested again is done again.
EACH_TIME = {"ResetCustomerAlert"}


def changes() -> list[Step]:
    """A good request of every method that changes something."""
    order = {**dict.fromkeys(FIRST, -1), **{name: number for number, name in enumerate(LAST, start=1)}}
    steps = sorted(VALIDATED, key=lambda step: order.get(step.name, 0))
    return [step._replace(request=_kept(step)) for step in steps]


def _kept(step: Step) -> str:
    return step.request.removesuffix(" validate_only: true").replace(*OTHER.get(step.name, ("", "")))


async def entries_after(database: Database, organization_id: int, number: int) -> list[StoredEntry]:
    async with numbering.reading(database, organization_id) as connection:
        found, _ = await log.read(connection, organization_id, AuditFilter(), after=number, limit=10_000)
    return found


async def play(database_url: str) -> dict[str, tuple[list[StoredEntry], list[StoredEntry]]]:
    """By change, its entries, and those of the same request once more."""
    database = Database(database_url)
    try:
        return await _played(database)
    finally:
        await database.close()


async def _played(database: Database) -> dict[str, tuple[list[StoredEntry], list[StoredEntry]]]:
    clock, played = ManualClock(datetime(2026, 3, 15, 12, 0, tzinfo=UTC)), {}
    async with database.transaction() as connection:
        key = await keys.create_key(connection, "ours", clock.now())
    organization_id, number = key.organization.organization_id, 0
    with known_ids() as names:
        async with (
            running(database, clock, engine_limits=ONE_SPEND_ALERT) as server,
            await psycopg.AsyncConnection.connect(database.url, autocommit=True) as observer,
        ):
            caller = StepCaller(server, key.key, OURS, names)
            for step in POPULATION:
                await caller.call(step)
                await settled(observer, database)
            for step in changes():
                number = (await entries_after(database, organization_id, 0))[-1].entry_number
                answer = await caller.call(step)
                assert "ERROR_REASON" not in answer, (step.name, answer)
                made = await entries_after(database, organization_id, number)
                await caller.call(step)
                again = await entries_after(database, organization_id, number + len(made))
                played[step.name] = made, again
                await settled(observer, database)
    return played


@pytest.fixture(scope="module")
def played(template: Template) -> dict[str, tuple[list[StoredEntry], list[StoredEntry]]]:
    return asyncio.run(play(template.fresh_database()))


@pytest.mark.parametrize("step", changes(), ids=lambda step: step.name)
def test_a_change_leaves_an_entry_of_its_method_and_none_when_it_is_repeated(
    played: dict[str, tuple[list[StoredEntry], list[StoredEntry]]], step: Step
) -> None:
    made, again = played[step.name]
    assert made
    assert {entry.cause.method.rsplit("/")[-1] for entry in made} == {step.method}
    assert {entry.cause.actor.roles for entry in made} == {("ADMIN",)}
    assert all(entry.cause.request_id and entry.cause.peer.startswith("ip") for entry in made)
    assert step.method in EACH_TIME or again == []


def test_every_method_that_an_editor_may_call_is_a_read_or_is_among_the_changes() -> None:
    """The contract says by the role whether a method changes anything; a new one has to be added to the requests."""
    changing = {
        method.name
        for method in METHODS
        if ACCESS[f"/{method.containing_service.full_name}/{method.name}"].role in (Role.EDITOR, Role.ADMIN)
        and not method.name.startswith(("Get", "List", "Watch"))
    }
    assert changing == {step.method for step in changes()}
    recorded_as_usage = {
        "EvaluateUsageBatch",
        "ReserveUsage",
        "SettleReservation",
        "ReleaseReservation",
        "ExtendReservation",
    }
    assert changing == {method.name for method in MUTATING} - recorded_as_usage
