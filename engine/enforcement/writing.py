"""Writing: what a commit of enforcement has decided is stored, and the usage of settlements counted as any usage."""

from collections.abc import Sequence
from dataclasses import replace

from engine.balances.running_drawdown import NOTHING_DRAWN
from engine.enforcement.attempts import Answer, Key
from engine.enforcement.ledger import Ledger
from engine.enforcement.refusals import refusal_of
from engine.enforcement.requests import Decided
from engine.enforcement.reset_times import with_reset_times
from engine.enforcement.running_credits import RunningCredits
from engine.evaluation.held_routing import HeldMove
from engine.evaluation.results import RecordedTransition
from engine.facts.fact_gauges import evaluate_new_customers
from engine.ingest.batches import Batch
from engine.ingest.counting import Counted, count
from engine.ingest.group import CommitGroup
from engine.ingest.storing import store
from engine.meters.cells import Cells
from engine.rules.loading import Registered
from engine.rules.transaction import Transaction
from evaluator.events import UsageEvent
from store.enforcement import meters, reservations, rolling_minutes
from store.enforcement.records import Settlement
from store.notifications import refused_limits
from store.postgres import pipelines


async def finish(
    transaction: Transaction, ledger: Ledger, registered: Registered, holds: Sequence[HeldMove], *, native: bool
) -> Counted | None:
    """Stores and counts the usage of settlements; stores what is drawn and held of balances.

    holds: for the gauges that count what is held. native: as of `store`.
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
        new = (await store(transaction, group, native=native)).new
    if len(new) != len(events):
        raise AssertionError("the usage of a settlement was not stored")
    drawdown = await credits.write() if isinstance(credits, RunningCredits) else NOTHING_DRAWN
    return await count(transaction, new, registered.customers, False, drawdown=drawdown, holds=holds)


async def write_and_commit(transaction: Transaction, ledger: Ledger, cells: Cells, answers: list[Answer]) -> None:
    """Writes what has changed, and commits; the transaction has begun by `pipelines.begin`."""
    raw, organization_id = transaction.driver, transaction.organization_id
    changed = cells.changed()
    if ledger.decider.rolling:
        await rolling_minutes.send_add(raw, organization_id, changed)
        await _find_reset_times(transaction, ledger, answers)
    if ledger.decider.refusals:
        found = [refusal_of(one.state) for one in ledger.decider.refusals]
        await refused_limits.add(transaction.connection, organization_id, found, transaction.now)
    records = [record for record in ledger.records.values() if record.changed]
    async with pipelines.pipeline(raw):
        if changed:
            await meters.send_write(raw, organization_id, changed, transaction.now)
            if not ledger.decider.rolling:
                await rolling_minutes.send_add(raw, organization_id, changed)
        if records:
            await reservations.send_write(raw, organization_id, records)
        await pipelines.commit(raw)


async def _find_reset_times(transaction: Transaction, ledger: Ledger, answers: list[Answer]) -> None:
    """Reads when enough will have left the rolling windows of the limits that refused."""
    rolling = ledger.decider.rolling
    replaced = await with_reset_times(
        transaction.driver, transaction.organization_id, transaction.now, rolling, ledger.cells
    )
    for one in rolling:
        new = replaced.get(id(one.decision))
        if new is None:
            continue
        if one.record is None:
            continue
        if one.asked is None:
            one.record.answer_with(new)
        else:
            one.record.settle_with(Settlement(*one.asked, new))
    for index, answer in enumerate(answers):
        if isinstance(answer, Decided) and id(answer.decision) in replaced:
            answers[index] = replace(answer, decision=replaced[id(answer.decision)])


def add_transitions(transaction: Transaction, counted: Counted | None, answers: list[Answer]) -> None:
    """Adds the transitions that reservations and their usage caused. The transaction is committed.

    A settlement's event has the id of its reservation.
    """
    if counted is None:
        return
    if transaction.router.epoch == transaction.epoch:
        for excluded in counted.excluded:
            transaction.router.exclude(*excluded)
    caused: dict[Key, list[RecordedTransition]] = {}
    first = {one.movement.watch.gauge: one.movement.entries[0][1].event_id for one in counted.subjects}
    for one in counted.transitions:
        cause = one.transition.cause
        event_id = first[one.gauge] if cause is None or cause.event_id is None else cause.event_id
        caused.setdefault((one.gauge.customer_id, event_id), []).append(one)
    for index, answer in enumerate(answers):
        if caused and isinstance(answer, Decided):
            transitions = caused.pop((answer.reservation.customer_id, answer.reservation.reservation_id), None)
            if transitions:
                answers[index] = replace(answer, transitions=transitions)
