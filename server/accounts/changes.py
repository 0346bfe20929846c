"""How what a customer holds and owes is changed: under the customer's wallet, evaluated in the same transaction."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from evaluator.aggregation import Tally
from evaluator.facts import Touched
from evaluator.routing import Customer
from runtime.clock import Clock
from server.accounts import readings
from server.accounts.readings import Reading
from server.ingest.evaluation import Evaluation, Movement, Subject
from server.ingest.rules import Rules
from store import facts, gauges, organizations, wallets
from store.database import Connection, Database, driver
from store.keys import Organization

Result = TypeVar("Result")
Change = Callable[[Connection], Awaitable[tuple[Result, Touched]]]


class Changes(Protocol):
    """Whoever carries out changes."""

    async def apply(self, organization: Organization, customer_id: str, change: Change[Result]) -> Result:
        """Runs `change` in a transaction that holds the customer's wallet, and returns its result once committed.

        A customer that is not known yet is created with defaults. What the change raises undoes all of it.
        """


class FactChanges:
    """Carries out changes, and evaluates what they touched before they are committed."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._rules: dict[int, Rules] = {}

    async def apply(
        self,
        organization: Organization,
        customer_id: str,
        change: Change[Result],
    ) -> Result:
        """Runs `change` in a transaction of its own, see `Changes`."""
        async with self._database.transaction() as connection:
            epoch = await organizations.share(connection, organization.organization_id)
            # Read under the lock: a change that waited happened when it got in, not when it was sent.
            now = self._clock.now()
            organization_id = organization.organization_id
            rules = self._rules.setdefault(organization_id, Rules(organization_id))
            router = await rules.router(connection, epoch)
            customer = await _customer(connection, organization_id, customer_id, epoch, now)
            await wallets.lock(connection, organization_id, [customer_id])
            result, touched = await change(connection)
            read = await readings.after_change(connection, organization_id, router, customer, touched)
            await evaluate_readings(connection, organization, epoch, read, now)
        return result


async def evaluate_readings(
    connection: Connection,
    organization: Organization,
    epoch: int,
    read: Sequence[Reading],
    now: datetime,
    *,
    first_look: bool = False,
) -> None:
    """Evaluates gauges of facts, which it locks, and writes what that found.

    first_look: an alert is new, and what it finds was there before it.
    """
    if not read:
        return
    raw = await driver(connection)
    watched = [item.watch.gauge for item in read]
    locked = await gauges.lock(raw, organization.organization_id, watched, now)
    subjects = []
    for item in read:
        stored = locked[item.watch.gauge.gauge_id]
        before = Tally(stored.value, stored.latest_event_time)
        subjects.append(
            Subject(Movement(item.watch), stored.visited_epoch, before, reading=item.value, first_look=first_look)
        )
    await Evaluation(raw, organization.organization_id, organization.name, epoch, now).run(subjects)


async def _customer(
    connection: Connection, organization_id: int, customer_id: str, epoch: int, now: datetime
) -> Customer:
    raw = await driver(connection)
    found = await facts.customers(raw, organization_id, [customer_id])
    if not found:
        found = await facts.first_sight_customers(raw, organization_id, [customer_id], epoch, now)
    if not found:  # another transaction has just created it
        found = await facts.customers(raw, organization_id, [customer_id])
    return found[0]
