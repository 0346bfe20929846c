"""The commit: events of several batches made durable, counted and evaluated in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal

from evaluator.aggregation import Aggregation, contribution
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge
from evaluator.routing import RouteKey, Router, Watch, group_of
from runtime.clock import Clock
from server.ingest.evaluation import Evaluation, Found, Movement, before_fold, before_move
from server.ingest.rules import Created, Rules
from store import events as stored_events
from store import gauges, organizations
from store.database import Connection, Database, DatabaseUnavailable, driver
from store.keys import Organization

# A connection that died while it lay idle is noticed by the first who uses it. The transaction is safe to repeat,
# so that one is given another before its caller hears of it.
ATTEMPTS = 2


@dataclass(eq=False, slots=True)
class Batch:
    """Events of one organization that were sent together, in the order in which they were sent."""

    events: Sequence[UsageEvent]
    include_gauges: bool = False


@dataclass(eq=False, slots=True)
class Outcome:
    """What became of a batch; positions are those in its `events`.

    accepted: how many were new. duplicates: stored before. conflicting: refused, since another event of that
    id is stored. too_old: refused, since no period that they lie in may still change.
    """

    accepted: int = 0
    duplicates: list[int] = field(default_factory=list)
    conflicting: list[int] = field(default_factory=list)
    too_old: list[int] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    gauges: list[tuple[Gauge, Decimal]] = field(default_factory=list)


@dataclass(slots=True)
class _Sorted:
    """The batches' events, each identity once. places: where it came first, as batch and position."""

    places: dict[tuple[str, str], tuple[int, int]]
    events: list[UsageEvent]  # in the order of arrival
    again: list[tuple[int, int]]  # batch and position of those whose identity had come before


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
        self._organization = organization.name
        self._rules = rules

    async def commit(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Stores, counts and evaluates; when it returns everything is durable.

        Raises DatabaseUnavailable when the database is; then nothing may have happened, or all of it: sending
        the same batches again is safe.
        """
        arrived = _sort(batches)
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

    async def _commit(self, batches: Sequence[Batch], arrived: _Sorted, expect_new: bool) -> list[Outcome]:
        outcomes = [Outcome() for _ in batches]
        now = self._clock.now()
        in_key_order = stored_events.in_key_order(arrived.events)
        async with self._database.transaction() as connection:
            epoch = await organizations.share(connection, self._organization_id)
            router = await self._rules.router(connection, epoch)
            created = await self._rules.meet(connection, router, arrived.events, now)
            raw = await driver(connection)
            events = self._countable(router, arrived.events, now)
            if events is not arrived.events:
                in_key_order = stored_events.in_key_order(events)
            new = events
            refused: set[tuple[str, str]] = set()
            if expect_new:
                try:
                    await stored_events.copy(raw, stored_events.copy_text(self._organization_id, now, in_key_order))
                except stored_events.DuplicateEvents:
                    self._rules.unmeet(router, created)
                    raise
            else:
                inserted = await stored_events.insert(raw, self._organization_id, now, in_key_order, arrived.events)
                new = [event for event in events if event.identity in inserted.new]
                refused = inserted.conflicting
            if new:
                await self._evaluate(connection, router, new, created, now, batches, arrived, outcomes)
        _account(router, batches, arrived, events, new, refused, outcomes)
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
            countable.append(_with_currency(router, event))
        return countable

    async def _evaluate(
        self,
        connection: Connection,
        router: Router,
        new: Sequence[UsageEvent],
        created: Created,
        now: datetime,
        batches: Sequence[Batch],
        arrived: _Sorted,
        outcomes: list[Outcome],
    ) -> None:
        raw = await driver(connection)
        with exact_arithmetic():
            movements = route(router, new)
            additive = [movement for movement in movements.values() if movement.watch.aggregation.additive]
            moves = [_move(movement) for movement in additive]
        folded = [movement for movement in movements.values() if not movement.watch.aggregation.additive]
        wanted = any(batch.include_gauges for batch in batches)
        values: dict[Gauge, Decimal] = {}
        subjects = []
        if moves:
            for moved in await gauges.move(raw, self._organization_id, moves, now, wanted):
                movement = additive[moved.index]
                values[movement.watch.gauge] = moved.value
                if moved.calls:
                    subjects.append(before_move(movement, moved.value, moved.visited_epoch, created.customers))
        if folded:
            watched = [movement.watch.gauge for movement in folded]
            locked = await gauges.lock(raw, self._organization_id, watched, now)
            subjects += [
                before_fold(movement, locked[movement.watch.gauge.gauge_id], created.customers) for movement in folded
            ]
        if subjects:
            evaluation = Evaluation(raw, self._organization_id, self._organization, router.epoch, now)
            result = await evaluation.run(subjects)
            values.update(result.values)
            first = {movement.watch.gauge: movement.entries[0][1] for movement in movements.values()}
            for found in result.found:
                cause = found.transition.cause
                identity = (found.gauge.customer_id, cause.event_id) if cause else first[found.gauge].identity
                outcomes[arrived.places[identity][0]].found.append(found)
        if wanted:
            _share_values(movements, values, batches, arrived, outcomes)


def _sort(batches: Sequence[Batch]) -> _Sorted:
    places: dict[tuple[str, str], tuple[int, int]] = {}
    events: list[UsageEvent] = []
    again: list[tuple[int, int]] = []
    for number, batch in enumerate(batches):
        for position, event in enumerate(batch.events):
            identity = event.customer_id, event.event_id
            if identity in places:
                again.append((number, position))
            else:
                places[identity] = number, position
                events.append(event)
    return _Sorted(places, events, again)


def route(router: Router, events: Sequence[UsageEvent]) -> dict[Watch, Movement]:
    """The gauges that the events move. Must run under `exact_arithmetic`."""
    movements: dict[Watch, Movement] = {}
    if not router.alerts:
        return movements
    for event in events:
        time = event.event_time
        key = RouteKey(event.customer_id, event.subscription_id, event.metric_id, event.currency)
        for target in router.targets(key, time):
            amount = event.cost if target.measure.of_cost else event.quantity
            if amount is None:
                continue
            if target.aggregation is not Aggregation.SUM:
                amount = contribution(target.aggregation, amount)
            for keys in target.by_keys:
                group = group_of(keys, event.properties) if keys else ()
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
                if amount < 0:
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
    arrived: _Sorted,
    outcomes: list[Outcome],
) -> None:
    """Gives each batch that asked for them the gauges that its own events moved."""
    for movement in movements.values():
        gauge = movement.watch.gauge
        for number in {arrived.places[event.identity][0] for _, event in movement.entries}:
            if batches[number].include_gauges:
                outcomes[number].gauges.append((gauge, values[gauge]))


def _with_currency(router: Router, event: UsageEvent) -> UsageEvent:
    """The event with the currency that its cost is in, said or not."""
    if event.cost is None or event.currency is not None:
        return event
    return replace(event, currency=router.currency_of(event.customer_id, event.subscription_id))


def _account(
    router: Router,
    batches: Sequence[Batch],
    arrived: _Sorted,
    countable: Sequence[UsageEvent],
    new: Sequence[UsageEvent],
    refused: set[tuple[str, str]],
    outcomes: list[Outcome],
) -> None:
    """Tells each batch which of its events were new, known or refused."""
    all_new = len(new) == len(arrived.events)
    accepted = set() if all_new else {event.identity for event in new}
    in_time = set() if all_new else {event.identity for event in countable}

    def unaccepted(identity: tuple[str, str], outcome: Outcome) -> list[int]:
        if identity in refused:
            return outcome.conflicting
        return outcome.duplicates if all_new or identity in in_time else outcome.too_old

    for identity, (number, position) in arrived.places.items():
        if all_new or identity in accepted:
            outcomes[number].accepted += 1
        else:
            unaccepted(identity, outcomes[number]).append(position)
    for number, position in arrived.again:
        outcome, event = outcomes[number], batches[number].events[position]
        first_number, first_position = arrived.places[event.identity]
        first = batches[first_number].events[first_position]
        same = _with_currency(router, first) == _with_currency(router, event)
        (unaccepted(event.identity, outcome) if same else outcome.conflicting).append(position)
