"""How what a customer holds and owes is changed: under the customer's wallet, evaluated in the same transaction."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from engine.evaluation.evaluation import Evaluation
from engine.evaluation.subjects import Movement, Subject
from engine.facts import readings
from engine.facts.readings import Covered, GaugeReading
from engine.rules.rules import Rules
from evaluator.aggregation import Tally
from evaluator.balance_values import reads_as_zero
from evaluator.changed_facts import ChangedFacts
from evaluator.limits import limit_of
from evaluator.routing import Router
from evaluator.routing_facts import CustomerFacts as Customer
from runtime.clock import Clock
from store.balances import wallets
from store.balances.wallets import ReadTimes, Wallet
from store.identity import organizations
from store.identity.organizations import Organization
from store.postgres.database import Connection, Database, driver
from store.usage import gauges
from store.usage import routing_facts as facts
from store.usage.gauges import NEVER_EVALUATED

Result = TypeVar("Result")
Change = Callable[[Connection], Awaitable[tuple[Result, ChangedFacts]]]


class Changes(Protocol):
    """Whoever carries out changes."""

    async def apply(self, organization: Organization, customer_id: str, change: Change[Result]) -> Result:
        """Runs `change` in a transaction that holds the customer's wallet, and returns its result once committed.

        A customer that is not known yet is created with defaults. What the change raises undoes all of it.
        """

    async def look_at(self, connection: Connection, organization: Organization, epoch: int, customer_id: str) -> None:
        """Evaluates alerts on facts for a customer that is new, or covered by other alerts than before.

        In the transaction that made it so, which holds the organization's lock since it raised the epoch to this.
        """


class FactChanges:
    """Carries out changes, and evaluates what they touched before they are committed."""

    def __init__(self, database: Database, clock: Clock, grace: timedelta) -> None:
        """`grace`: how long after its period's end an invoice is still looked at for the first time."""
        self._database = database
        self._clock = clock
        self._grace = grace
        self._rules: dict[int, Rules] = {}

    async def apply(
        self,
        organization: Organization,
        customer_id: str,
        change: Change[Result],
    ) -> Result:
        """Runs `change` in a transaction of its own, see `Changes`."""
        organization_id = organization.organization_id
        async with self._database.transaction() as connection:
            epoch = await organizations.lock_shared(connection, organization_id)
            # Read under the lock: a change that waited happened when it got in, not when it was sent.
            now = self._clock.now()
            router = await self._router(connection, organization_id, epoch)
            customer, created = await _customer(connection, organization_id, customer_id, epoch, now)
            wallet = (await wallets.lock(connection, organization_id, [customer_id]))[customer_id]
            await catch_up(connection, organization, router, {customer: wallet}, now)
            result, touched = await change(connection)
            covered = Covered(customer, router.fact_rules(customer), wallet.moment(now))
            if created:
                look = await readings.of_everything(connection, organization_id, [covered], self._grace)
            else:
                look = await readings.after_change(connection, organization_id, covered, touched)
            await evaluate_readings(connection, organization, router, look.found, now)
            await wallets.set_earlier_timers(connection, organization_id, look.read([covered]))
        return result

    async def look_at(self, connection: Connection, organization: Organization, epoch: int, customer_id: str) -> None:
        """Evaluates alerts on facts for a customer, see `Changes`."""
        organization_id, now = organization.organization_id, self._clock.now()
        # The alerts are those of the epoch before. Under the new one they must not be remembered: the transaction
        # may yet be undone, and another one give that epoch to other rules.
        router = await self._router(connection, organization_id, epoch - 1)
        wallet = (await wallets.lock(connection, organization_id, [customer_id]))[customer_id]
        customer = (await facts.customers(await driver(connection), organization_id, [customer_id]))[0]
        await catch_up(connection, organization, router, {customer: wallet}, now)
        covered = [Covered(customer, router.fact_rules(customer), wallet.moment(now))]
        look = await readings.of_everything(connection, organization_id, covered, self._grace)
        await evaluate_readings(connection, organization, router, look.found, now, epoch=epoch)
        await wallets.set_timers(connection, organization_id, look.read(covered))

    async def _router(self, connection: Connection, organization_id: int, epoch: int) -> Router:
        return await self._rules.setdefault(organization_id, Rules(organization_id)).router(connection, epoch)


async def look_at_new_customers(
    connection: Connection,
    organization: Organization,
    router: Router,
    customer_ids: Sequence[str],
    now: datetime,
    grace: timedelta,
    *,
    careful: bool = False,
) -> None:
    """Evaluates for customers that were just created what reads 0 of those who never held anything."""
    covered = []
    for customer_id in customer_ids:
        customer = router.customers[customer_id]
        rules = [rule for rule in router.fact_rules(customer) if rule.measure.balances is not None]
        if any(reads_as_zero(rule.measure.balances) for rule in rules if rule.measure.balances is not None):
            covered.append(Covered(customer, rules, now))
    if covered:
        look = await readings.of_everything(connection, organization.organization_id, covered, grace)
        await evaluate_readings(connection, organization, router, look.found, now, careful=careful)


async def catch_up(
    connection: Connection,
    organization: Organization,
    router: Router,
    held: Mapping[Customer, Wallet],
    now: datetime,
    *,
    careful: bool = False,
) -> None:
    """Does for customers whose time has come what time asks for, moment by moment up to `now`.

    held: customers and their wallets; those whose time has not come are left alone. What each moment brings is read
    as of that moment, however late it is.
    """
    organization_id = organization.organization_id
    due = {customer: wallet.due_time for customer, wallet in held.items()}
    read: dict[str, ReadTimes] = {}
    while covered := [
        Covered(customer, router.fact_rules(customer), time)
        for customer, time in due.items()
        if time is not None and time <= now
    ]:
        look = await readings.at_times(connection, organization_id, covered)
        await evaluate_readings(connection, organization, router, look.found, now, careful=careful)
        read.update(look.read(covered))
        due = {item.customer: read[item.customer.customer_id].due_time for item in covered}
    await wallets.set_timers(connection, organization_id, read)


async def evaluate_readings(
    connection: Connection,
    organization: Organization,
    router: Router,
    read: Sequence[GaugeReading],
    now: datetime,
    *,
    epoch: int | None = None,
    first_look: bool = False,
    forgotten: str | None = None,
    careful: bool = False,
) -> None:
    """Evaluates gauges of facts, which it locks, and writes what that found.

    router: knows the limits of plans, and the epoch unless that is given. first_look: an alert is new, and what it
    finds was there before it. forgotten: the alert that is to forget what it remembers. careful: see `Evaluation`.
    """
    if not read:
        return
    raw = await driver(connection)
    watched = [item.watch.gauge for item in read]
    locked = await gauges.lock(raw, organization.organization_id, watched, now)
    subjects = []
    for item in read:
        gauge = item.watch.gauge
        stored = locked[gauge.gauge_id]
        last = None if stored.rules_epoch == NEVER_EVALUATED else stored.value
        if any(rule.has_percentages for rule in item.watch.alerts):
            holders = router.limits_of(item.customer, item.customer.plan_id)
            item.watch.limit = limit_of(holders, gauge.measure.unit, gauge.group)
        subjects.append(
            Subject(
                Movement(item.watch),
                stored.rules_epoch,
                Tally(stored.value, stored.latest_event_time, stored.latest_event_id),
                scale=stored.scale,
                reading=item.reading.after(last),
                cause=item.cause,
                first_look=first_look,
                forgotten=forgotten,
            )
        )
    at_epoch = router.epoch if epoch is None else epoch
    evaluation = Evaluation(raw, organization.organization_id, organization.name, at_epoch, now, careful=careful)
    await evaluation.run(subjects)


async def _customer(
    connection: Connection, organization_id: int, customer_id: str, epoch: int, now: datetime
) -> tuple[Customer, bool]:
    """The customer, and whether this made it."""
    raw = await driver(connection)
    found = await facts.customers(raw, organization_id, [customer_id])
    if found:
        return found[0], False
    made = await facts.register_customers(raw, organization_id, [customer_id], epoch, now)
    if made:
        return made[0], True
    # Another transaction has just created it.
    return (await facts.customers(raw, organization_id, [customer_id]))[0], False
