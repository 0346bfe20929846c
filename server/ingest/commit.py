"""The commit: events of several batches made durable, counted and evaluated in one transaction."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from evaluator.aggregation import Aggregation, contribution
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.events import UsageEvent
from evaluator.exclusions import Excluded
from evaluator.gauges import Gauge
from evaluator.prices import passes_all
from evaluator.routing import Router, Watch, group_of
from runtime.clock import Clock
from server.accounts.changes import look_at_new_customers
from server.ingest.batches import (
    Arrived,
    Batch,
    Outcome,
    account_known,
    account_new,
    known_places,
    sort,
    with_currency,
)
from server.ingest.drawing import draw, settle
from server.ingest.evaluation import Evaluation
from server.ingest.rules import Created, Rules
from server.ingest.subjects import Movement, before_fold, before_move
from store import events as stored_events
from store import gauges, organizations
from store.database import Connection, Database, DatabaseUnavailable, driver
from store.keys import Organization

# A connection that died while it lay idle is noticed by the first who uses it. The transaction is safe to repeat,
# so that one is given another before its caller hears of it.
ATTEMPTS = 2


class Committer:
    """Commits batches of one organization."""

    def __init__(
        self, database: Database, clock: Clock, grace: timedelta, organization: Organization, rules: Rules
    ) -> None:
        """`grace`: how long after its end a period still counts what comes late."""
        self._database = database
        self._clock = clock
        self._grace = grace
        self._organization_id = organization.organization_id
        self._organization = organization
        self._rules = rules

    async def commit(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Stores, counts and evaluates; when it returns everything is durable.

        Raises DatabaseUnavailable when the database is; then nothing may have happened, or all of it: sending
        the same batches again is safe.
        """
        arrived = sort(batches)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                try:
                    return await self._commit(batches, arrived, expect_new=True)
                except stored_events.DuplicateEvents:
                    return await self._commit(batches, arrived, expect_new=False)
            except DatabaseUnavailable:
                self._rules.forget()
                if attempt == ATTEMPTS:
                    raise
            except BaseException:
                self._rules.forget()
                raise
        raise AssertionError("unreachable")

    async def _commit(self, batches: Sequence[Batch], arrived: Arrived, expect_new: bool) -> list[Outcome]:
        outcomes = [Outcome() for _ in batches]
        now = self._clock.now()
        async with self._database.transaction() as connection:
            standing = await organizations.hold(connection, self._organization_id)
            if standing.name != self._organization.name:  # this lives for longer than a name has to
                self._organization = Organization(self._organization_id, standing.name)
            router = await self._rules.router(connection, standing.epoch)
            created = await self._rules.meet(connection, router, arrived.events, now)
            raw = await driver(connection)
            events = self._countable(router, arrived.events, now)
            new = events
            if expect_new:
                try:
                    await stored_events.copy(raw, stored_events.copy_text(self._organization_id, now, events))
                except stored_events.DuplicateEvents:
                    self._rules.unmeet(router, created)
                    raise
            else:
                inserted = await stored_events.insert(raw, self._organization_id, now, events)
                new = [event for event in events if event.identity in inserted]
            excluded: set[Excluded] = set()
            if new:
                excluded = await self._evaluate(connection, router, new, created, now, batches, arrived, outcomes)
            known = known_places(batches, arrived, new)
            if known:
                sent = [batches[number].events[position] for number, position in known]
                alike = await stored_events.stored_alike(raw, self._organization_id, sent)
                account_known(sent, known, alike, events, outcomes)
        # Not before it is certain: a router that did not watch what is not excluded would miss events.
        for one in excluded:
            router.exclude(*one)
        account_new(router, batches, arrived, new, outcomes)
        return outcomes

    def _countable(self, router: Router, arrived: list[UsageEvent], now: datetime) -> list[UsageEvent]:
        """The events whose period may still change, each with its currency; the same list when it is all of them."""
        oldest = now - self._grace
        if all(event.event_time > oldest and (event.cost is None or event.currency) for event in arrived):
            return arrived
        countable = []
        for event in arrived:
            who = event.customer_id, event.subscription_id
            if event.event_time <= oldest and router.last_period_end(*who, event.event_time) <= oldest:
                continue
            countable.append(with_currency(router, event))
        return countable

    async def _evaluate(
        self,
        connection: Connection,
        router: Router,
        new: Sequence[UsageEvent],
        created: Created,
        now: datetime,
        batches: Sequence[Batch],
        arrived: Arrived,
        outcomes: list[Outcome],
    ) -> set[Excluded]:
        raw = await driver(connection)
        if created.customers:
            whose = sorted(created.customers)
            await look_at_new_customers(connection, self._organization, router, whose, now, self._grace)
        drawn = await draw(connection, self._organization, router, new, now)
        with exact_arithmetic():
            movements = route(router, new) | drawn.movements
            additive = [movement for movement in movements.values() if movement.watch.aggregation.additive]
            moves = [_move(movement) for movement in additive]
        folded = [movement for movement in movements.values() if not movement.watch.aggregation.additive]
        wanted = any(batch.include_gauges for batch in batches)
        values: dict[Gauge, Decimal] = {}
        subjects = []
        excluded: set[Excluded] = set()
        if moves:
            # In the order of arrival: it decides which groups are too many.
            all_moved = await gauges.move(raw, self._organization_id, moves, now, wanted)
            for moved in sorted(all_moved, key=lambda one: one.index):
                movement = additive[moved.index]
                values[movement.watch.gauge] = moved.value
                if moved.calls:
                    subjects.append(before_move(movement, moved, created.customers))
        if folded:
            watched = [movement.watch.gauge for movement in folded]
            locked = await gauges.lock(raw, self._organization_id, watched, now)
            subjects += [
                before_fold(movement, locked[movement.watch.gauge.gauge_id], created.customers) for movement in folded
            ]
        if drawn.movements:
            await settle(connection, self._organization_id, subjects, drawn)
        if subjects:
            evaluation = Evaluation(raw, self._organization_id, self._organization.name, router.epoch, now)
            result = await evaluation.run(subjects)
            values.update(result.values)
            excluded = result.excluded
            first = {subject.movement.watch.gauge: subject.movement.entries[0][1] for subject in subjects}
            for found in result.found:
                cause = found.transition.cause
                identity = first[found.gauge].identity
                if cause is not None and cause.event_id is not None:
                    identity = found.gauge.customer_id, cause.event_id
                outcomes[arrived.places[identity][0]].found.append(found)
        if wanted:
            _share_values(movements, values, batches, arrived, outcomes)
        return excluded


def route(router: Router, events: Sequence[UsageEvent]) -> dict[Watch, Movement]:
    """The gauges that the events move. Must run under `exact_arithmetic`."""
    movements: dict[Watch, Movement] = {}
    if not router.alerts:
        return movements
    for event in events:
        _, customer_id, time, metric_id, quantity, subscription_id, cost, currency, properties = event
        for target in router.targets((customer_id, subscription_id, metric_id, currency), time):
            amount = cost if target.measure.of_cost else quantity
            if amount is None or (target.prices and not passes_all(target.prices, properties)):
                continue
            if target.aggregation is not Aggregation.SUM:
                amount = contribution(target.aggregation, amount)
            for keys in target.by_keys:
                group = group_of(keys, properties) if keys else ()
                if group is None:
                    continue
                watch = target.watch(group, time)
                if watch is None:
                    continue
                movement = movements.get(watch)
                if movement is None:
                    movement = movements[watch] = Movement(watch)
                movement.entries.append((amount, event))
                movement.total += amount
                if amount < ZERO:
                    movement.falls = True
    return movements


def _move(movement: Movement) -> gauges.Move:
    high, low = movement.total, ZERO
    if movement.falls:
        running = high = ZERO
        for amount, _ in movement.entries:
            running += amount
            high, low = max(high, running), min(low, running)
    watch = movement.watch
    return gauges.Move(watch.gauge, movement.total, high, low, watch.required_epoch)


def _share_values(
    movements: dict[Watch, Movement],
    values: dict[Gauge, Decimal],
    batches: Sequence[Batch],
    arrived: Arrived,
    outcomes: list[Outcome],
) -> None:
    """Gives each batch that asked for them the gauges that its own events moved."""
    for movement in movements.values():
        gauge = movement.watch.gauge
        for number in {arrived.places[event.identity][0] for _, event in movement.entries}:
            if batches[number].include_gauges:
                outcomes[number].gauges.append((gauge, values[gauge]))
