"""Requests that are safe to repeat: a request with a known request id gets the answer of the first one."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from google.protobuf.message import Message

from engine.changes.groups import ChangeGroups
from engine.changes.open_change import OpenChange
from runtime.clock import Clock
from server.calls.current_call import current_organization
from server.calls.validate_only import transaction_of
from server.calls.validation import Violations
from store.identity import idempotent_answers
from store.identity.idempotent_answers import AnsweredBefore, AnswerKey, RequestIdReused
from store.postgres.database import Connection, Database

MAX_REQUEST_ID_LENGTH = 128  # characters

Answer = TypeVar("Answer", bound=Message)
Made = TypeVar("Made")


def read_request_id(violations: Violations, request_id: str) -> str:
    """The request id of a request; empty where the caller gives none."""
    return violations.text("request_id", request_id, max_length=MAX_REQUEST_ID_LENGTH)


async def answer_once(
    database: Database,
    clock: Clock,
    method: str,
    request: Message,
    answer_type: type[Answer],
    work: Callable[[Connection], Awaitable[Answer]],
) -> Answer:
    """Runs `work` in a transaction and returns its answer; for a repeated request, returns the answer of the first.

    request: has the fields `request_id` and `validate_only`. An empty request_id makes every request the first. The
    answer is stored in the transaction of `work`, and gets `replayed` when it is returned again. With validate_only
    nothing is stored and nothing is changed. Raises RequestIdReused, and what `work` raises.
    """
    request_id: str = getattr(request, "request_id")  # noqa: B009 (Message does not declare it)
    validate_only: bool = getattr(request, "validate_only")  # noqa: B009
    async with transaction_of(database, validate_only) as connection:
        if not request_id:
            return await work(connection)
        key = (connection, current_organization().organization_id, method, request_id, _payload(request))
        first = await idempotent_answers.find_answer(*key)
        if first is not None:
            return replayed(answer_type, first)
        answer = await work(connection)
        if not validate_only:
            await idempotent_answers.store_answer(*key, answer.SerializeToString(), clock.now())
        return answer


@dataclass(frozen=True, slots=True)
class Steps(Generic[Made, Answer]):
    """The steps of a change that waits for its group.

    read: before the lock; what it returns is the result if there is nothing to change, else None. write: under the
    lock; returns the result. answer: what answers show of the result.
    """

    read: Callable[[Connection], Awaitable[Made | None]]
    write: Callable[[OpenChange], Awaitable[Made]]
    answer: Callable[[Made], Awaitable[Answer]]


async def changed_once(
    groups: ChangeGroups,
    clock: Clock,
    method: str,
    request: Message,
    answer_type: type[Answer],
    steps: Steps[Made, Answer],
    *,
    rows: int,
) -> Answer:
    """Like `answer_once`, for a change that waits for its group. rows: see `ChangeGroups.run`.

    All works of one method go through this function. The answer is made after the commit where it is not stored.
    """
    change = _ChangedOnce(groups, clock, method, request, answer_type, steps, rows)
    try:
        return await change.answer()
    except AnsweredBefore:
        return await change.first_answer()


@dataclass(frozen=True, slots=True)
class _ChangedOnce(Generic[Made, Answer]):
    """One call of `changed_once`.

    Tries of one request take no lock of its id: a try that reads would let the group of another try wait, and with
    it, under the organization's lock, all usage. If two of them store an answer, the second one is undone.
    """

    groups: ChangeGroups
    clock: Clock
    method: str
    request: Message
    answer_type: type[Answer]
    steps: Steps[Made, Answer]
    rows: int

    async def answer(self) -> Answer:
        """The answer, after the change. Raises AnsweredBefore if another try has stored one meanwhile."""
        organization_id, steps = current_organization().organization_id, self.steps
        key = request_key(self.method, self.request)
        validate_only: bool = getattr(self.request, "validate_only")  # noqa: B009
        stored_under = None if validate_only else key

        async def store(connection: Connection, answer: Answer, now: datetime) -> None:
            if stored_under is not None:
                answers = {stored_under: answer.SerializeToString()}
                await idempotent_answers.store_answers(connection, organization_id, answers, now)

        async with self.groups.transaction(organization_id) as connection:
            if (first := await self._known(connection, key)) is not None:
                return first
            made = await steps.read(connection)
            if made is not None:
                answer = await steps.answer(made)
                await store(connection, answer, self.clock.now())
                return answer

        async def write(change: OpenChange) -> tuple[Made | None, Answer | None]:
            if (first := await self._known(change.connection, key)) is not None:
                return None, first
            made = await steps.write(change)
            if stored_under is None:
                return made, None
            answer = await steps.answer(made)
            await store(change.connection, answer, change.now)
            return None, answer

        made, answered = await self.groups.run(organization_id, write, rows=self.rows, keep=not validate_only)
        if answered is not None:
            return answered
        assert made is not None, "a change has a result or an answer"
        return await steps.answer(made)

    async def first_answer(self) -> Answer:
        """The answer that another try has stored."""
        async with self.groups.transaction(current_organization().organization_id) as connection:
            first = await self._known(connection, request_key(self.method, self.request))
        assert first is not None, "answers are kept longer than a call takes"
        return first

    async def _known(self, connection: Connection, key: AnswerKey | None) -> Answer | None:
        if key is None:
            return None
        found = await idempotent_answers.known_answers(connection, current_organization().organization_id, [key])
        first = found.get(key)
        if isinstance(first, RequestIdReused):
            raise first
        return None if first is None else replayed(self.answer_type, first)


def request_key(method: str, request: Message) -> AnswerKey | None:
    """The key of a request with the fields `request_id` and `validate_only`; None without an id."""
    request_id: str = getattr(request, "request_id")  # noqa: B009
    return idempotent_answers.key_of(method, request_id, _payload(request)) if request_id else None


def replayed(answer_type: type[Answer], first: bytes) -> Answer:
    """The stored answer to the first of repeated requests, marked as a replay."""
    repeated = answer_type.FromString(first)
    setattr(repeated, "replayed", True)  # noqa: B010
    return repeated


def _payload(request: Message) -> bytes:
    """What has to be equal in requests with the same id."""
    compared = type(request)()
    compared.CopyFrom(request)
    compared.ClearField("validate_only")
    return compared.SerializeToString(deterministic=True)
