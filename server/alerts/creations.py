"""CreateAlert: the creations that wait together are one statement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from engine.backfill.quiet import wide_watches
from engine.changes.open_change import OpenChange
from engine.rules.registry import RulesRegistry
from evaluator.definitions import AlertDefinition
from generated.tidemark.v1 import alert_pb2, warning_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from server.alerts.id_warnings import warnings_of
from server.calls.idempotency import replayed
from server.mapping.audited_resources import Describing
from server.mapping.unknown_ids import NamedIds
from store.alerts import counts, creation
from store.alerts.change import Begun
from store.alerts.drafts import Draft
from store.identity import idempotent_answers
from store.identity.idempotent_answers import AnswerKey, RequestIdReused
from store.identity.quotas import QuotaReached
from store.postgres.database import Connection

Answer = messages.CreateAlertResponse
CreatedOrAnswer = AlertDefinition | messages.CreateAlertResponse


@dataclass(eq=False, slots=True)
class Creation:
    """One alert to create. key: of a request with an id. is_kept: false, it is only validated, and no answer stored.

    describe: makes the entry of the audit log. warnings: set when it is prepared.
    """

    draft: Draft
    named: NamedIds
    key: AnswerKey | None
    is_kept: bool
    describe: Describing[AlertDefinition, alert_pb2.Alert]
    warnings: list[warning_pb2.Warning] = field(default_factory=list)

    def answer(self, created: AlertDefinition) -> Answer:
        """The answer that shows the alert."""
        return Answer(alert=self.describe.message(created), warnings=self.warnings)


class Creations:
    """The kind of change that creates alerts. Its result is the answer, or the alert where no answer is stored."""

    goes_last = True

    def __init__(self, rules: RulesRegistry, max_alerts: Callable[[int], int | None]) -> None:
        """max_alerts: of an organization; None without a quota."""
        self._rules = rules
        self._max_alerts = max_alerts

    def needs_preparing(self, item: Creation) -> bool:
        """Always: its warnings are found without the lock."""
        return True

    async def prepare(
        self, connection: Connection, organization_id: int, items: Sequence[Creation]
    ) -> Sequence[CreatedOrAnswer | Exception | None]:
        """Finds the answers to repeated requests, and the warnings about unknown ids.

        Where the quota is used up already, all others are refused, so that they do not take the lock.
        """
        known = await _known(connection, organization_id, items)
        try:
            await counts.refuse_reached(connection, organization_id, self._max_alerts(organization_id))
        except QuotaReached as reached:
            return [QuotaReached(reached.kind, reached.limit) if one is None else one for one in known]
        new = [item for item, answer in zip(items, known, strict=True) if answer is None]
        warnings = await warnings_of(connection, organization_id, [item.named for item in new])
        for item, found in zip(new, warnings, strict=True):
            item.warnings = found
        return known

    async def apply(self, change: OpenChange, items: Sequence[Creation]) -> Sequence[CreatedOrAnswer | Exception]:
        """Creates the alerts that can be created; of requests with the same id, the first that can."""
        done = dict[Creation, CreatedOrAnswer | Exception]()
        left = list(items)
        while left:
            first, left = _one_of_each_key(left)
            known = await _known(change.connection, change.organization_id, first)
            done |= {item: answer for item, answer in zip(first, known, strict=True) if answer is not None}
            new = [item for item in first if item not in done]
            part = replace(change, is_last=change.is_last and not left)
            done |= zip(new, await self._create(part, new), strict=True)
        return [done[item] for item in items]

    async def _create(self, change: OpenChange, items: Sequence[Creation]) -> list[CreatedOrAnswer | Exception]:
        begun = Begun(change.epoch, change.now)
        drafts = [item.draft for item in items]
        wide = wide_watches(self._rules, change, drafts)
        created = await creation.create_each(
            change.connection, change.organization_id, drafts, begun, change.max_spend_alerts, wide, change.max_alerts
        )
        return await _answered(change, items, created)


async def _answered(
    change: OpenChange, items: Sequence[Creation], created: Sequence[AlertDefinition | Exception]
) -> list[CreatedOrAnswer | Exception]:
    """Stores the answers to requests with an id, and records the new alerts in the audit log."""
    done, stored = list[CreatedOrAnswer | Exception](), dict[AnswerKey, bytes]()
    for item, one in zip(items, created, strict=True):
        if not isinstance(one, Exception):
            change.trail.append(item.describe(None, one))
        if item.key is None or not item.is_kept or isinstance(one, Exception):
            done.append(one)
        else:
            done.append(answer := item.answer(one))
            stored[item.key] = answer.SerializeToString()
    await idempotent_answers.store_answers(change.connection, change.organization_id, stored, change.now)
    return done


async def _known(
    connection: Connection, organization_id: int, items: Sequence[Creation]
) -> list[Answer | RequestIdReused | None]:
    """The stored answers to requests that are repeated; None for the first request."""
    keys = {item.key for item in items if item.key is not None}
    known = await idempotent_answers.known_answers(connection, organization_id, keys)
    found = [None if item.key is None else known.get(item.key) for item in items]
    return [replayed(Answer, one) if isinstance(one, bytes) else one for one in found]


def _one_of_each_key(items: Sequence[Creation]) -> tuple[list[Creation], list[Creation]]:
    """The first item of each request id, with those that have none; and the others."""
    first, others, seen = list[Creation](), list[Creation](), set[str]()
    for item in items:
        if item.key is not None and item.key.request_id in seen:
            others.append(item)
            continue
        if item.key is not None:
            seen.add(item.key.request_id)
        first.append(item)
    return first, others
