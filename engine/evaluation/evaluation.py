"""The evaluation of gauges that a transaction has locked; ingest, backfills, fact changes and timers share it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from engine.evaluation.gauge_evaluation import Findings, GaugeEvaluation
from engine.evaluation.group_limit import GroupLimit, apply_group_limit
from engine.evaluation.notification_traces import NO_TRACES, traces_of_disablings, traces_of_transitions
from engine.evaluation.recounting import find_new_values, recount
from engine.evaluation.results import Result
from engine.evaluation.silence import Silence
from engine.evaluation.subjects import Subject, evaluations_of
from engine.evaluation.unrecordable import RefusalSearch, Unrecordable, add_guilty_events, items_of
from engine.rules.transaction import Transaction
from evaluator.alerts import AlertRule
from evaluator.amounts import exact_arithmetic
from evaluator.watching_alerts import WatchingAlerts
from runtime.tracing import spans
from store.alerts.states import read_states, write_states
from store.notifications.writing import NewNotification, write_notifications
from store.usage import gauges

# Gauges, and evaluations of one alert on one gauge, of a part: what is evaluated between two statements. The
# transaction holds the organization's lock and is idle meanwhile. All else that the process does goes on, so that it
# takes ten times as long as the work alone: about half a second for so many evaluations that all reach a threshold.
PART = 500
PART_EVALUATIONS = 500


async def evaluate_gauges(transaction: Transaction, subjects: Sequence[Subject]) -> Result:
    """Recounts, evaluates and writes everything but the events themselves.

    Raises Unrecordable where the transaction is careful and some of it cannot be stored.
    """
    with spans.within("evaluate") as span:
        result = await _evaluate_gauges(transaction, subjects)
        span.note("tidemark.evaluation.gauges", len(subjects))
        span.note("tidemark.evaluation.transitions", len(result.transitions))
    return result


async def _evaluate_gauges(transaction: Transaction, subjects: Sequence[Subject]) -> Result:
    await recount(transaction, [subject for subject in subjects if subject.before is None])
    await find_new_values(transaction, subjects)
    group_limit = await apply_group_limit(transaction, subjects)
    result = Result(excluded=group_limit.excluded)
    unrecordable = Unrecordable(None)
    for part in _parts(subjects):
        await _evaluate_part(transaction, part, group_limit, result, unrecordable)
    if unrecordable.cause is not None:
        raise unrecordable
    if group_limit.disabled:
        await write_notifications(
            transaction.driver,
            transaction.organization_id,
            group_limit.disabled,
            transaction.now,
            await traces_of_disablings(transaction, group_limit.disabled),
        )
    return result


def _parts(subjects: Sequence[Subject]) -> Iterator[Sequence[Subject]]:
    """The subjects in parts: at most PART gauges and about PART_EVALUATIONS evaluations, but one gauge at least."""
    start = total = 0
    for index, subject in enumerate(subjects):
        number = evaluations_of(subject)
        if index > start and (index - start == PART or total + number > PART_EVALUATIONS):
            yield subjects[start:index]
            start, total = index, 0
        total += number
    if start < len(subjects):
        yield subjects[start:]


async def _evaluate_part(
    transaction: Transaction,
    subjects: Sequence[Subject],
    group_limit: GroupLimit,
    result: Result,
    unrecordable: Unrecordable,
) -> None:
    """Evaluates gauges and writes what it finds; adds it to the result.

    Where the transaction is careful and not all can be stored, adds that to `unrecordable` and writes nothing.
    """
    evaluation = await _prepare(transaction, subjects, group_limit)
    tallies = {}
    if transaction.careful:
        tallies = {one: replace(one.tally, unseen=set(one.tally.unseen)) for one in subjects}
    with exact_arithmetic():
        slices = transaction.slices()
        await slices.begin()
        for subject in subjects:
            await slices.pause()
            for _ in evaluation.evaluate(subject):
                await slices.pause()
                if evaluation.findings.size >= PART_EVALUATIONS and not transaction.careful:
                    await _write(transaction, evaluation.findings.take(), subjects, result)
                    await slices.begin()
    findings = evaluation.findings
    if transaction.careful:
        search = RefusalSearch(transaction)
        if refused := await search.refused(items_of(subjects, findings)):
            unrecordable.cause = search.error
            with exact_arithmetic():
                add_guilty_events(unrecordable, refused, tallies, evaluation)
            return
    await _write(transaction, findings, subjects, result)


async def _prepare(transaction: Transaction, subjects: Sequence[Subject], group_limit: GroupLimit) -> GaugeEvaluation:
    """Reads what the evaluation of these gauges needs."""
    connection, organization_id = transaction.driver, transaction.organization_id
    states = await read_states(connection, organization_id, [one.movement.watch.gauge for one in subjects])
    silence = await Silence.read(connection, organization_id, _perhaps_silent(subjects))
    return GaugeEvaluation(
        transaction.organization.name,
        transaction.epoch,
        transaction.now,
        states,
        silence,
        group_limit.not_evaluated,
    )


def _perhaps_silent(subjects: Sequence[Subject]) -> Iterator[tuple[AlertRule, int]]:
    """The alerts that may be silent, each with the earliest epoch at which one of these gauges was evaluated."""
    epochs: dict[WatchingAlerts, int] = {}
    for one in subjects:
        if one.stale or one.backfilled:
            watching = one.movement.watch.watching
            epochs[watching] = min(one.rules_epoch, epochs.get(watching, one.rules_epoch))
    return ((rule, epoch) for watching, epoch in epochs.items() for rule in watching.perhaps_silent)


async def _write(transaction: Transaction, findings: Findings, subjects: Sequence[Subject], result: Result) -> None:
    """Writes gauges, states, and notifications with their outbox and feed rows; adds them to the result."""
    connection, organization_id, now = transaction.driver, transaction.organization_id, transaction.now
    slices = transaction.slices()
    notifications: dict[str, NewNotification] = {}
    for one in findings.transitions:
        if one.notification is not None:
            notifications[one.notification.notification_id] = one.notification
            await slices.pause()
    traces = await traces_of_transitions(transaction, findings.transitions, subjects) if notifications else NO_TRACES
    async with connection.pipeline():
        if findings.evaluated:
            await gauges.write(connection, organization_id, findings.evaluated, now)
        if findings.states:
            await write_states(connection, organization_id, findings.states)
        if notifications:
            await write_notifications(connection, organization_id, list(notifications.values()), now, traces)
    result.transitions.extend(findings.transitions)
    result.values.extend((item.gauge, item.value) for item in findings.evaluated)
