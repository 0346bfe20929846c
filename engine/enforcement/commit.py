"""The commit of enforcement: requests of many callers are decided and made durable in one transaction.

Its steps, in the order of all locks: the organization's lock; the facts of the usage, with the registration of what
is unknown; the wallets of all customers whose meters are concerned. Then reservations, meters and credits are read,
the requests are decided in memory (`ledger`), the usage of settlements is stored and counted as any usage
(`engine.ingest`), and what has changed is written.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from engine.balances.running_drawdown import NOTHING_DRAWN
from engine.enforcement.credits import NO_CREDITS, RunningCredits, open_credits
from engine.enforcement.digests import digest_of
from engine.enforcement.ledger import Credits, Ledger, Metered
from engine.enforcement.metering import metered_of, want_targets
from engine.enforcement.monitoring import EnforcementMonitoring
from engine.enforcement.refusals import refusal_of
from engine.enforcement.requests import (
    Check,
    Decided,
    EnforcementRefused,
    EventConflict,
    Extend,
    Release,
    Request,
    Reserve,
    Settle,
    UnrecordableRequest,
)
from engine.enforcement.reset_times import with_reset_times
from engine.evaluation.held_routing import HeldMove
from engine.evaluation.results import RecordedTransition
from engine.facts.fact_gauges import evaluate_new_customers
from engine.ingest.batches import Batch
from engine.ingest.counting import Counted, count
from engine.ingest.group import CommitGroup
from engine.ingest.storing import store
from engine.meters.cells import Cells
from engine.meters.held_moves import held_moves, open_keys
from engine.meters.known_targets import KnownTargets
from engine.rules.loading import Registered
from engine.rules.organization_rules import OrganizationRules
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transaction
from evaluator.amounts import ZERO, exact_arithmetic
from evaluator.enforcement.reservations import ReservationState
from evaluator.enforcement.usage import Usage
from evaluator.events import UsageEvent
from runtime.actions import LogAction
from runtime.clock import Clock
from store.balances import wallets
from store.balances.wallets import Wallet
from store.enforcement import meters, reservations, rolling_minutes
from store.enforcement.records import Record
from store.identity import organizations
from store.identity.organizations import Organization
from store.notifications import refused_limits
from store.postgres.database import Database, DatabaseUnavailable, DriverConnection, driver
from store.postgres.retries import FIRST_PAUSE, Tries
from store.usage import events as stored_events
from store.usage.events import DuplicateEvents

logger = logging.getLogger(__name__)

Answer = Decided | EnforcementRefused
_Key = tuple[str, str]  # customer and reservation

# Tries of a commit that found something else than it had expected: events or reservations that others just stored.
MOST_SURPRISES = 10
MOST_WALLETS = 100_000  # of one organization, of which a process knows that they exist
DECIDED_AT_ONCE = 50  # requests that are decided without a pause


async def _at_once() -> None:
    """The default of `between_commits`: nothing has to go on meanwhile."""


class _Surprise(Exception):
    """Something that was read before the locks has changed since; the transaction is repeated."""


@dataclass(eq=False)
class _Attempt:
    """One try of a commit. checked: whether stored events are looked for before usage of settlements is stored."""

    requests: Sequence[Request]
    checked: bool
    usages: dict[int, Metered] = field(default_factory=dict)  # by index of the request
    settled: dict[_Key, Metered] = field(default_factory=dict)  # of reservations that exist
    refused: dict[int, EnforcementRefused] = field(default_factory=dict)


class EnforcementCommitter:
    """Commits requests of one organization; one commit at a time."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        grace: timedelta,
        rules: RulesRegistry,
        organization: Organization,
        *,
        divided_commits: int,
        between_commits: Callable[[], Awaitable[None]] = _at_once,
        first_pause: float = FIRST_PAUSE,
        native: bool = True,
        monitoring: EnforcementMonitoring | None = None,
    ) -> None:
        """`grace`: how long after its end a period still counts late events.

        `rules`: not those of ingest, in which each customer has one writer. `divided_commits`: the most commits that
        are tried instead of one that failed. The others: as of `engine.ingest.commit.Committer`.
        """
        self._database = database
        self._clock = clock
        self._grace = grace
        self._rules = rules
        self._organization = organization
        self._organization_id = organization.organization_id
        self._divided_commits = divided_commits
        self._between_commits = between_commits
        self._first_pause = first_pause
        self._native = native
        self._monitoring = monitoring or EnforcementMonitoring()
        self._targets = KnownTargets()
        self._wallets = set[str]()  # customers that have a wallet, as far as is known

    async def commit(self, requests: Sequence[Request]) -> list[Answer]:
        """Decides requests in their order; when it returns, all of it is durable.

        If that fails for what it writes, they are committed in parts, and only those that fail alone are refused.
        Raises DatabaseUnavailable when the database is; then nothing may have happened, or all, or a part: to send
        the same requests again is safe.
        """
        try:
            return await self._repeated(requests)
        except DatabaseUnavailable:
            raise
        except Exception:
            logger.warning(
                "a commit of enforcement failed; its requests are committed in parts",
                exc_info=True,
                extra={"action": LogAction.COMMIT_FAILED},
            )
        self._monitoring.divided += 1
        return await self._divided(requests)

    async def _divided(self, requests: Sequence[Request]) -> list[Answer]:
        """Commits in halves, the first half first, until what fails fails alone."""
        answers: list[Answer | None] = [None] * len(requests)
        waiting, commits = [range(len(requests))], 0
        while waiting:
            part = waiting.pop()
            if commits >= self._divided_commits:
                for index in part:
                    answers[index] = UnrecordableRequest(requests[index].customer_id)
                continue
            if len(part) < len(requests) or len(requests) == 1:
                commits += 1
                await self._between_commits()
                try:
                    found = await self._repeated([requests[index] for index in part])
                except DatabaseUnavailable:
                    raise
                except Exception:
                    if len(part) == 1:
                        logger.exception(
                            "a request of enforcement could not be recorded; it is refused",
                            extra={"action": LogAction.EVENT_FAILED},
                        )
                        answers[part[0]] = UnrecordableRequest(requests[part[0]].customer_id)
                        continue
                else:
                    for index, answer in zip(part, found, strict=True):
                        answers[index] = answer
                    continue
            middle = len(part) // 2
            waiting += [part[middle:], part[:middle]]
        return [answer for answer in answers if answer is not None]

    async def _repeated(self, requests: Sequence[Request]) -> list[Answer]:
        """Commits, again after failures that allow it."""
        tries, surprises, checked = Tries(first_pause=self._first_pause), 0, False
        while True:
            try:
                return await self._attempt(_Attempt(requests, checked))
            except (DuplicateEvents, _Surprise) as error:
                surprises += 1
                if surprises == MOST_SURPRISES:
                    raise
                checked = checked or isinstance(error, DuplicateEvents)
            except DatabaseUnavailable as error:
                # Reservations are identified by their ids, so the transaction may be repeated after a commit, too.
                if not await tries.another(error):
                    raise
                await self._between_commits()

    async def _attempt(self, attempt: _Attempt) -> list[Answer]:
        rules = self._rules.of(self._organization_id)
        registered, router = rules.begin(), None
        now, began = self._clock.now(), time.perf_counter()
        try:
            async with self._database.transaction() as connection:
                raw = await driver(connection)
                standing, before = await self._begin(raw, attempt)
                if standing.name != self._organization.name:  # it was renamed meanwhile
                    self._organization = Organization(self._organization_id, standing.name)
                router = await rules.router(connection, standing.epoch)
                transaction = Transaction(
                    connection,
                    raw,
                    self._organization,
                    router,
                    now,
                    self._grace,
                    standing.epoch,
                    self._rules.max_groups,
                )
                await self._load_facts(transaction, rules, attempt, before, registered)
                ledger, cells = await self._load(transaction, attempt, before, registered)
                open_before = open_keys(ledger.records.values())
                answers = await self._decide(transaction, attempt, ledger)
                holds = held_moves(router, ledger.records.values(), open_before)
                counted = await self._finish(transaction, ledger, registered, holds)
                await self._write(transaction, ledger, cells, answers)
        except BaseException:
            rules.rolled_back(router, registered)
            raise
        rules.committed(registered)
        self._add_transitions(transaction, counted, answers)
        self._monitoring.committed(answers, time.perf_counter() - began)
        return answers

    async def _begin(
        self, raw: DriverConnection, attempt: _Attempt
    ) -> tuple[organizations.LockedOrganization, dict[_Key, Record]]:
        """Takes the organization's lock, shared, and reads the reservations that are to be changed.

        They are not locked yet; but what a reservation is for, and what it holds, never changes.
        """
        named = {
            (one.customer_id, one.reservation_id)
            for one in attempt.requests
            if isinstance(one, Settle | Release | Extend)
        }
        async with raw.pipeline():
            locked = await organizations.send_lock_shared(raw, self._organization_id)
            cursor = await reservations.send_read(raw, self._organization_id, named) if named else None
        records = {} if cursor is None else await reservations.records(cursor)
        return await organizations.locked(locked), records

    async def _load_facts(
        self,
        transaction: Transaction,
        rules: OrganizationRules,
        attempt: _Attempt,
        before: dict[_Key, Record],
        registered: Registered,
    ) -> None:
        """Reads the facts of all usage; registers what is unknown. Finds what each request of usage is about."""
        usages = [one.usage for one in attempt.requests if isinstance(one, Reserve | Check)]
        usages += [record.reservation.usage for record in before.values()]
        kinds = {(usage.customer_id, usage.subscription_id, usage.metric_id): usage for usage in usages}
        named = [_named(usage) for usage in kinds.values()]
        router = transaction.router
        await rules.load_facts(transaction.connection, router, named, transaction.now, registered)
        self._targets.use(router)
        for index, request in enumerate(attempt.requests):
            if not isinstance(request, Reserve | Check):
                continue
            try:
                attempt.usages[index] = self._metered(transaction, request.usage)
            except EnforcementRefused as error:
                attempt.refused[index] = error

    def _metered(self, transaction: Transaction, usage: Usage) -> Metered:
        """See `metered_of`."""
        return metered_of(transaction.router, self._targets, usage, transaction.now, transaction.grace)

    async def _load(
        self, transaction: Transaction, attempt: _Attempt, before: dict[_Key, Record], registered: Registered
    ) -> tuple[Ledger, Cells]:
        """Locks the wallets, and reads what they protect."""
        raw, organization_id = transaction.driver, self._organization_id
        cells = Cells(organization_id, transaction.router, transaction.now, registered.customers)
        keys = dict.fromkeys(
            (one.customer_id, one.reservation_id) for one in attempt.requests if isinstance(one, Reserve)
        )
        customer_ids = {metered.usage.customer_id for metered in attempt.usages.values()}
        with exact_arithmetic():
            for metered in attempt.usages.values():
                want_targets(cells, metered)
            for key, record in before.items():
                customer_ids.add(key[0])
                for one in record.held:
                    cells.want_held(one.customer_id, one.key)
                try:
                    metered = self._metered(transaction, record.reservation.usage)
                except EnforcementRefused:
                    continue  # so is the request
                attempt.settled[key] = metered
                want_targets(cells, metered)
        customer_ids |= cells.customer_ids
        unknown = customer_ids - self._wallets
        async with raw.pipeline():
            if unknown:
                await wallets.send_create(raw, organization_id, unknown)
            locked = await wallets.send_lock(raw, organization_id, customer_ids)
            changed = await reservations.send_compare(raw, organization_id, before.values()) if before else None
            read = await reservations.send_read(raw, organization_id, keys) if keys else None
            await cells.send_read(raw)
        number, held = await wallets.locked(locked)
        if number < len(customer_ids):  # one was deleted, with its customer
            self._wallets -= customer_ids
            raise _Surprise
        if changed is not None and changed.rowcount:
            raise _Surprise
        made = {} if read is None else await reservations.records(read)
        if (fresh := made.keys() - before.keys()) and any(
            (request.customer_id, request.reservation_id) in fresh
            for request in attempt.requests
            if isinstance(request, Settle | Release | Extend)
        ):
            raise _Surprise  # it was made meanwhile, so what it holds was not read
        records = made | before
        await cells.load(raw)
        if len(self._wallets) > MOST_WALLETS:
            self._wallets.clear()
        self._wallets |= customer_ids
        credits = await self._open_credits(transaction, attempt, records, held)
        return Ledger(transaction.now, cells.by_key, records, credits), cells

    async def _open_credits(
        self,
        transaction: Transaction,
        attempt: _Attempt,
        records: dict[_Key, Record],
        held: dict[str, Wallet],
    ) -> Credits:
        """The credits of all that may be held, settled or given back."""
        if not held:
            return NO_CREDITS
        usages = [metered.usage for metered in attempt.usages.values()]
        reserved = {
            (one.customer_id, one.reservation_id): attempt.usages[index].usage
            for index, one in enumerate(attempt.requests)
            if isinstance(one, Reserve) and index in attempt.usages
        }
        for request in attempt.requests:
            if isinstance(request, Settle):
                key = request.customer_id, request.reservation_id
                usage = records[key].reservation.usage if key in records else reserved.get(key)
                if usage is not None:
                    usages.append(_to_settle(request, usage))
        draws = [
            (record.reservation.customer_id, record.draws)
            for record in records.values()
            if record.draws is not None and record.reservation.state is ReservationState.OPEN
        ]
        return await open_credits(transaction, held, usages, draws)

    async def _decide(self, transaction: Transaction, attempt: _Attempt, ledger: Ledger) -> list[Answer]:
        taken = await self._taken(transaction, attempt, ledger) if attempt.checked else set()
        answers: list[Answer] = []
        slices = transaction.slices()
        slices.begin_at_once()
        with exact_arithmetic():
            for index, request in enumerate(attempt.requests):
                if not index % DECIDED_AT_ONCE:
                    await slices.pause()
                try:
                    if index in attempt.refused:
                        raise attempt.refused[index]
                    answers.append(self._answer(transaction, attempt, ledger, index, request, taken))
                except EnforcementRefused as error:
                    answers.append(error)
        return answers

    def _answer(
        self,
        transaction: Transaction,
        attempt: _Attempt,
        ledger: Ledger,
        index: int,
        request: Request,
        taken: set[_Key],
    ) -> Decided:
        if isinstance(request, Reserve):
            return ledger.reserve(request, attempt.usages[index], digest_of(request))
        if isinstance(request, Settle):
            key = request.customer_id, request.reservation_id
            record, metered = ledger.records.get(key), None
            if record is not None and is_unsettled(record):
                if key in taken:
                    raise EventConflict(*key)
                metered = attempt.settled.get(key) or self._metered(transaction, record.reservation.usage)
            return ledger.settle(request, metered)
        if isinstance(request, Release):
            return ledger.release(request)
        if isinstance(request, Extend):
            return ledger.extend(request)
        return Decided(ledger.check(attempt.usages[index], request.policy), None)

    async def _taken(self, transaction: Transaction, attempt: _Attempt, ledger: Ledger) -> set[_Key]:
        """Those of the reservations to be settled of which events are stored already."""
        wanted = {}
        for request in attempt.requests:
            if isinstance(request, Settle):
                record = ledger.records.get((request.customer_id, request.reservation_id))
                if record is not None and is_unsettled(record):
                    wanted[record.key] = _event_of(record)
        return await stored_events.stored_of(transaction.driver, self._organization_id, list(wanted.values()))

    async def _finish(
        self, transaction: Transaction, ledger: Ledger, registered: Registered, holds: Sequence[HeldMove]
    ) -> Counted | None:
        """Stores and counts the usage of settlements; stores what is drawn and held of balances.

        holds: for the gauges that count what is held.
        """
        events, credits = ledger.events, ledger.credits
        if not events and not holds:
            if isinstance(credits, RunningCredits):
                await credits.write()
            if registered.customers:
                await evaluate_new_customers(transaction, sorted(registered.customers))
            return None
        new: Sequence[UsageEvent] = ()
        if events:
            group = CommitGroup([Batch(events)], events, [])
            new = (await store(transaction, group, native=self._native)).new
        if len(new) != len(events):
            raise AssertionError("the usage of a settlement was not stored")
        drawdown = await credits.write() if isinstance(credits, RunningCredits) else NOTHING_DRAWN
        return await count(transaction, new, registered.customers, False, drawdown=drawdown, holds=holds)

    async def _write(self, transaction: Transaction, ledger: Ledger, cells: Cells, answers: list[Answer]) -> None:
        """Writes what has changed."""
        raw, organization_id = transaction.driver, self._organization_id
        changed = cells.changed()
        if ledger.rolling:
            await rolling_minutes.send_add(raw, organization_id, changed)
            await self._find_reset_times(transaction, ledger, answers)
        if ledger.refusals:
            found = [refusal_of(one.state) for one in ledger.refusals]
            await refused_limits.add(transaction.connection, organization_id, found, transaction.now)
        records = [record for record in ledger.records.values() if record.changed]
        async with raw.pipeline():
            if changed:
                await meters.send_write(raw, organization_id, changed, transaction.now)
                if not ledger.rolling:
                    await rolling_minutes.send_add(raw, organization_id, changed)
            if records:
                await reservations.send_write(raw, organization_id, records)

    async def _find_reset_times(self, transaction: Transaction, ledger: Ledger, answers: list[Answer]) -> None:
        """Reads when enough will have left the rolling windows of the limits that refused."""
        replaced = await with_reset_times(transaction.driver, self._organization_id, transaction.now, ledger.rolling)
        for one in ledger.rolling:
            new = replaced.get(id(one.decision))
            if new is None:
                continue
            if one.record is not None and one.record.reservation.state is not ReservationState.SETTLED:
                one.record.answer_with(new)
        for index, answer in enumerate(answers):
            if isinstance(answer, Decided) and id(answer.decision) in replaced:
                answers[index] = replace(answer, decision=replaced[id(answer.decision)])

    def _add_transitions(self, transaction: Transaction, counted: Counted | None, answers: list[Answer]) -> None:
        """Adds the transitions that reservations and their usage caused. The transaction is committed.

        A settlement's event has the id of its reservation.
        """
        if counted is None:
            return
        if transaction.router.epoch == transaction.epoch:
            for excluded in counted.excluded:
                transaction.router.exclude(*excluded)
        caused: dict[_Key, list[RecordedTransition]] = {}
        first = {one.movement.watch.gauge: one.movement.entries[0][1].event_id for one in counted.subjects}
        for one in counted.transitions:
            cause = one.transition.cause
            event_id = first[one.gauge] if cause is None or cause.event_id is None else cause.event_id
            caused.setdefault((one.gauge.customer_id, event_id), []).append(one)
        for index, answer in enumerate(answers):
            if caused and isinstance(answer, Decided) and (reservation := answer.reservation) is not None:
                transitions = caused.pop((reservation.customer_id, reservation.reservation_id), None)
                if transitions:
                    answers[index] = replace(answer, transitions=transitions)


def is_unsettled(record: Record) -> bool:
    """Whether a settlement of it would store usage."""
    one = record.reservation
    return one.settled_quantity is None and one.state in (ReservationState.OPEN, ReservationState.EXPIRED)


def _named(usage: Usage) -> UsageEvent:
    """An event that names what usage names, for `Loading`."""
    time = usage.event_time or datetime.max.replace(tzinfo=UTC)
    return UsageEvent(
        "",
        usage.customer_id,
        time,
        usage.metric_id,
        usage.quantity,
        usage.subscription_id,
        usage.cost,
        usage.currency,
        usage.properties,
    )


def _event_of(record: Record) -> UsageEvent:
    """The event that a settlement would store."""
    one = record.reservation
    return _named(one.usage)._replace(event_id=one.reservation_id)


def _to_settle(request: Settle, usage: Usage) -> Usage:
    """The usage that a settlement may draw: the greater of what was asked for and what was used."""
    quantity, cost = max(usage.quantity, request.quantity or ZERO), usage.cost
    if cost is not None and request.cost is not None:
        cost = max(cost, request.cost)
    return replace(usage, quantity=quantity, cost=cost)
