"""The commit: events of several batches made durable, counted and evaluated in one transaction."""

import functools
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from engine.balances.drawdown import draw, settle
from engine.evaluation.evaluation import Evaluation
from engine.evaluation.subjects import Movement, before_fold, before_move
from engine.facts.changes import look_at_new_customers
from engine.ingest.batches import (
    Arrived,
    Batch,
    Outcome,
    account_known,
    account_new,
    known_places,
    sort,
    with_currency,
)
from engine.ingest.containment import Containment, Refused
from engine.rules.rules import Created, Rules
from evaluator.aggregation import Aggregation, contribution
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.events import UsageEvent
from evaluator.exclusions import Excluded
from evaluator.gauges import Gauge
from evaluator.prices import passes_all
from evaluator.routing import Router, group_of
from evaluator.watched_gauges import WatchedGauge as Watch
from runtime.actions import LogAction
from runtime.clock import Clock
from runtime.turns import Slices
from store.identity import organizations
from store.identity.organizations import Organization
from store.notifications import evaluation_failures
from store.postgres.database import Connection, Database, DatabaseUnavailable, driver
from store.postgres.retries import Tries
from store.usage import events as stored_events
from store.usage import gauges
from webhooks.operator_events import EvaluationFailure

logger = logging.getLogger(__name__)

ROUTED_AT_ONCE = 100  # events whose gauges are found without a pause


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
        self._told: dict[str | None, int] = {}  # alerts that operators were told of, and in which window of time

    async def commit(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Stores, counts and evaluates; when it returns everything is durable.

        Raises DatabaseUnavailable when the database is; then nothing may have happened, or some of it, or all:
        sending the same batches again is safe. Of other failures only those events hear that cannot be recorded.
        """
        try:
            return await self._attempt(batches)
        except DatabaseUnavailable:
            raise
        except Exception:
            logger.warning(
                "a commit failed; its events are committed without those that cannot be recorded",
                exc_info=True,
                extra={"action": LogAction.COMMIT_FAILED},
            )
        contained = await Containment(functools.partial(self._attempt, careful=True), batches).commit()
        await self._tell(contained.refused)
        return contained.outcomes

    async def _attempt(self, batches: Sequence[Batch], *, careful: bool = False) -> list[Outcome]:
        arrived = sort(batches)
        tries = Tries()
        while True:
            try:
                try:
                    return await self._commit(batches, arrived, expect_new=True, careful=careful)
                except stored_events.DuplicateEvents:
                    return await self._commit(batches, arrived, expect_new=False, careful=careful)
            except DatabaseUnavailable as error:
                # Events are known by their ids, so the transaction may be repeated after a commit, too: a connection
                # that died while it lay idle is noticed by the first who uses it, and that one is given another.
                if not await tries.another(error):
                    raise

    async def _tell(self, refused: Sequence[Refused]) -> None:
        """Writes operator events of alerts that could not be recorded; that it fails harms no answer."""
        now = self._clock.now()
        failures = {one.alert_id: one for one in reversed(refused)}  # the first of each alert
        told = {alert_id: evaluation_failures.window(now) for alert_id in failures}
        new = [one for alert_id, one in failures.items() if self._told.get(alert_id) != told[alert_id]]
        if not new:
            return
        try:
            async with self._database.transaction() as connection:
                await evaluation_failures.add(
                    connection,
                    self._organization_id,
                    [EvaluationFailure(one.alert_id, one.customer_id, one.event_id) for one in new],
                    now,
                )
        except Exception:
            logger.exception(
                "operators could not be told of a failure", extra={"action": LogAction.OPERATOR_EVENT_FAILED}
            )
            return
        self._told = {
            key: window for key, window in self._told.items() if window == evaluation_failures.window(now)
        } | told

    async def _commit(
        self, batches: Sequence[Batch], arrived: Arrived, expect_new: bool, careful: bool
    ) -> list[Outcome]:
        created = self._rules.begin()
        router: Router | None = None
        outcomes = [Outcome() for _ in batches]
        now = self._clock.now()
        try:
            async with self._database.transaction() as connection:
                standing = await organizations.lock_shared_with_name(connection, self._organization_id)
                if standing.name != self._organization.name:  # this lives for longer than a name has to
                    self._organization = Organization(self._organization_id, standing.name)
                router = await self._rules.router(connection, standing.epoch)
                await self._rules.meet(connection, router, arrived.events, now, created)
                raw = await driver(connection)
                events = self._countable(router, arrived.events, now)
                new = events
                if expect_new:
                    text = await stored_events.copy_text_in_slices(
                        self._organization_id, now, events, Slices(self._organization_id)
                    )
                    await stored_events.copy(raw, text)
                else:
                    inserted = await stored_events.insert(raw, self._organization_id, now, events)
                    new = [event for event in events if event.identity in inserted]
                excluded: set[Excluded] = set()
                if new:
                    excluded = await self._evaluate(
                        connection, router, new, created, now, batches, arrived, outcomes, careful
                    )
                known = known_places(batches, arrived, new)
                if known:
                    sent = [batches[number].events[position] for number, position in known]
                    alike = await stored_events.stored_alike(raw, self._organization_id, sent)
                    account_known(sent, known, alike, events, outcomes)
        except stored_events.DuplicateEvents:
            self._rules.rolled_back(router, created, ())  # before anything was routed
            raise
        except BaseException:
            self._rules.rolled_back(router, created, arrived.events)
            raise
        self._rules.committed(created)
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
        careful: bool,
    ) -> set[Excluded]:
        raw = await driver(connection)
        if created.customers:
            whose = sorted(created.customers)
            await look_at_new_customers(
                connection, self._organization, router, whose, now, self._grace, careful=careful
            )
        drawn = await draw(connection, self._organization, router, new, now, careful=careful)
        with exact_arithmetic():
            movements = await route(router, new, Slices(self._organization_id)) | drawn.movements
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
                if moved.needs_evaluation:
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
            evaluation = Evaluation(
                raw, self._organization_id, self._organization.name, router.epoch, now, careful=careful
            )
            result = await evaluation.run(subjects)
            values.update(result.values)
            excluded = result.excluded
            slices = Slices(self._organization_id)
            first = {subject.movement.watch.gauge: subject.movement.entries[0][1] for subject in subjects}
            for found in result.found:
                await slices.pause()
                cause = found.transition.cause
                identity = first[found.gauge].identity
                if cause is not None and cause.event_id is not None:
                    identity = found.gauge.customer_id, cause.event_id
                outcomes[arrived.places[identity][0]].found.append(found)
        if wanted:
            _share_values(movements, values, batches, arrived, outcomes)
        return excluded


async def route(router: Router, events: Sequence[UsageEvent], slices: Slices) -> dict[Watch, Movement]:
    """The gauges that the events move; found in slices where the events are many. Must run under `exact_arithmetic`.

    What other commits change in the router meanwhile is of other customers: those of these events have one writer.
    """
    movements: dict[Watch, Movement] = {}
    if not router.alerts:
        return movements
    if len(events) > ROUTED_AT_ONCE:
        await slices.begin()
    for start in range(0, len(events), ROUTED_AT_ONCE):
        _route(router, events[start : start + ROUTED_AT_ONCE], movements)
        if start + ROUTED_AT_ONCE < len(events):
            await slices.pause()
    return movements


def _route(router: Router, events: Sequence[UsageEvent], movements: dict[Watch, Movement]) -> None:
    for event in events:
        _, customer_id, time, metric_id, quantity, subscription_id, cost, currency, properties = event
        for target in router.customer_measures((customer_id, subscription_id, metric_id, currency), time):
            amount = cost if target.measure.of_cost else quantity
            if amount is None or (target.prices and not passes_all(target.prices, properties)):
                continue
            if target.aggregation is not Aggregation.SUM:
                amount = contribution(target.aggregation, amount)
            for keys in target.by_keys:
                group = group_of(keys, properties) if keys else ()
                if group is None:
                    continue
                watch = target.watched_gauge(group, time)
                if watch is None:
                    continue
                movement = movements.get(watch)
                if movement is None:
                    movement = movements[watch] = Movement(watch)
                movement.entries.append((amount, event))
                movement.total += amount
                if amount < ZERO:
                    movement.falls = True


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
