"""Changes of facts: stored and evaluated in one transaction, one change of a customer at a time."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeVar

from evaluator.aggregation import Tally
from evaluator.facts import Touched
from evaluator.routing import Customer
from runtime.clock import Clock
from server.facts import reading
from server.facts.reading import Reading
from server.ingest.evaluation import Evaluation, Movement, Subject
from server.ingest.rules import Rules
from store import facts, gauges, organizations, wallets
from store.database import Connection, Database, driver
from store.keys import Organization

Result = TypeVar("Result")


class FactChanges:
    """Carries out changes of customers' facts; the same rules of the organization serve all of them."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._rules: dict[int, Rules] = {}

    async def apply(
        self,
        organization: Organization,
        customer_id: str,
        change: Callable[[Connection], Awaitable[tuple[Result, Touched]]],
    ) -> Result:
        """Lets `change` write what it has to, and evaluates what that touched; returns what it returned.

        A customer that nobody registered is created. Raises what `change` raises, and DatabaseUnavailable; then
        nothing has happened.
        """
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
            read = await reading.after_change(connection, organization_id, router, customer, touched)
            await evaluate_readings(connection, organization, epoch, read, now)
        return result


async def evaluate_readings(
    connection: Connection,
    organization: Organization,
    epoch: int,
    readings: Sequence[Reading],
    now: datetime,
    *,
    first_look: bool = False,
) -> None:
    """Evaluates gauges of facts, which it locks, and writes what that found.

    first_look: an alert is new, and what it finds was there before it.
    """
    if not readings:
        return
    raw = await driver(connection)
    watched = [item.watch.gauge for item in readings]
    locked = await gauges.lock(raw, organization.organization_id, watched, now)
    subjects = []
    for item in readings:
        stored = locked[item.watch.gauge.gauge_id]
        before = Tally(stored.value, stored.latest_event_time)
        subjects.append(
            Subject(
                Movement(item.watch), stored.visited_epoch, before, reading=item.value, first_look=first_look
            )
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
