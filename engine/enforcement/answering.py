"""Answering: the requests of a commit are decided in their order."""

from engine.enforcement.attempts import Answer, Attempt, Key, is_unsettled, usage_event
from engine.enforcement.digests import digest_of
from engine.enforcement.ledger import Ledger
from engine.enforcement.loading import Loader
from engine.enforcement.requests import (
    Decided,
    EnforcementRefused,
    EventConflict,
    Release,
    Request,
    Reserve,
    Settle,
)
from engine.rules.transaction import Transaction
from evaluator.amounts import exact_arithmetic
from store.usage import events as stored_events

DECIDED_AT_ONCE = 50  # requests that are decided without a pause


async def answer(loader: Loader, transaction: Transaction, attempt: Attempt, ledger: Ledger) -> list[Answer]:
    """Decides all requests of an attempt."""
    taken = await _taken(transaction, attempt, ledger) if attempt.checked else set()
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
                answers.append(_answer(loader, transaction, attempt, ledger, index, request, taken))
            except EnforcementRefused as error:
                answers.append(error)
    return answers


def _answer(
    loader: Loader,
    transaction: Transaction,
    attempt: Attempt,
    ledger: Ledger,
    index: int,
    request: Request,
    taken: set[Key],
) -> Decided:
    if isinstance(request, Reserve):
        key = request.customer_id, request.reservation_id
        if key in attempt.taken and key not in ledger.records:
            raise EventConflict(*key)
        return ledger.reserve(request, attempt.usages[index], digest_of(request))
    if isinstance(request, Settle):
        key = request.customer_id, request.reservation_id
        record, metered = ledger.records.get(key), None
        if record is not None and is_unsettled(record):
            if key in taken:
                ledger.refuse_settlement(record)
                raise EventConflict(*key)
            metered = attempt.settled.get(key) or loader.metered(transaction, record.reservation.usage)
        return ledger.settle(request, metered)
    if isinstance(request, Release):
        return ledger.release(request)
    return ledger.extend(request)


async def _taken(transaction: Transaction, attempt: Attempt, ledger: Ledger) -> set[Key]:
    """Those of the reservations to be settled of which events are stored already."""
    wanted = {}
    for request in attempt.requests:
        if isinstance(request, Settle):
            record = ledger.records.get((request.customer_id, request.reservation_id))
            if record is not None and is_unsettled(record):
                wanted[record.key] = usage_event(record.reservation.usage, record.reservation.reservation_id)
    return await stored_events.stored_of(transaction.driver, transaction.organization_id, list(wanted.values()))
