"""AlertService: creates, changes and archives several alerts at once, all or none."""

from collections.abc import Iterator, Sequence
from typing import Any

from engine.backfill.backfills import Backfills
from engine.backfill.quiet import wide_watches
from engine.changes.groups import ChangeGroups
from engine.changes.open_change import OpenChange
from engine.rules.registry import RulesRegistry
from evaluator.definitions import AlertDefinition
from generated.tidemark.v1 import alert_pb2, warning_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from runtime.clock import Clock
from runtime.turns import Slices
from server.alerts.batch_items import check_items, read_items
from server.alerts.id_warnings import warnings_of
from server.alerts.open_changes import change_of
from server.alerts.updates import MAX_ETAG_LENGTH, Updated, Updates
from server.calls.answer_size import AnswerField, add_in_slices, fitting_in_slices
from server.calls.context import Context
from server.calls.current_call import current_author, current_organization
from server.calls.idempotency import Answer, Steps, changed_once, read_request_id
from server.calls.validation import Violations
from server.mapping import unknown_ids
from server.mapping.alerts import abridged_message, alert_message, read_new_alert
from server.mapping.unknown_ids import NamedIds
from store.alerts import changes, creation, unique_keys
from store.alerts.change import ItemRefused, ItemsAlike
from store.alerts.changes import Edit
from store.alerts.drafts import Draft, draft
from store.postgres.database import Connection

# With 1,000 abridged alerts, of up to 640 bytes each, an answer has less than DEFAULT_ANSWER_BYTES.
MAX_ALERT_BYTES = 1024 * 1024  # of the alerts in one answer; those beyond are abridged
MAX_WARNING_BYTES = 256 * 1024  # of the warnings in one answer

_Batch = messages.BatchCreateAlertsRequest | messages.BatchUpdateAlertsRequest | messages.BatchArchiveAlertsRequest


class AlertBatchHandlers:
    """Serves the RPCs that change several alerts in one transaction, under one lock and in one epoch."""

    def __init__(self, clock: Clock, changes: ChangeGroups, backfills: Backfills, rules: RulesRegistry) -> None:
        self._clock = clock
        self._changes = changes
        self._backfills = backfills
        self._rules = rules

    async def BatchCreateAlerts(
        self, request: messages.BatchCreateAlertsRequest, context: Context
    ) -> messages.BatchCreateAlertsResponse:
        """Creates several alerts, or repeats the answer that the same request got before."""
        _check(request, "request_id", "validate_only")
        organization_id, author = current_organization().organization_id, current_author()
        slices = Slices(organization_id)
        new = await read_items(request.requests, lambda one: read_new_alert(Violations(), one), slices)
        drafts, named = list[Draft](), list[NamedIds]()
        for one in new:
            await slices.pause()
            drafts.append(draft(one, author))
            named.append(unknown_ids.of_alert(one.scope, one.condition, one.thresholds))
        unique_keys.refuse_alike({index: one.definition for index, one in enumerate(drafts)})
        warnings, omitted = list[warning_pb2.Warning](), 0

        async def read(connection: Connection) -> None:
            nonlocal warnings, omitted
            found = await warnings_of(connection, organization_id, named)
            warnings, omitted = await _fitting_warnings(found, slices)

        async def create(change: OpenChange) -> list[AlertDefinition]:
            wide = wide_watches(self._rules, change, drafts)
            return await creation.create_many(change_of(change, author), drafts, wide)

        async def answer(created: list[AlertDefinition]) -> messages.BatchCreateAlertsResponse:
            answer = messages.BatchCreateAlertsResponse(omitted_warning_count=omitted)
            answer.abridged_alert_count = await _add_alerts(answer.alerts, created, slices)
            await add_in_slices(answer.warnings, warnings, slices)
            return answer

        answered = await self._once(
            "BatchCreateAlerts", request, messages.BatchCreateAlertsResponse, Steps(read, create, answer)
        )
        self._wake(request)
        return answered

    async def BatchUpdateAlerts(
        self, request: messages.BatchUpdateAlertsRequest, context: Context
    ) -> messages.BatchUpdateAlertsResponse:
        """Changes several alerts, or repeats the answer that the same request got before."""
        _check(request, "validate_only")
        organization_id, author = current_organization().organization_id, current_author()
        slices = Slices(organization_id)
        updates = Updates(organization_id, request.requests)

        async def update(change: OpenChange) -> list[Updated]:
            return await updates.make(change_of(change, author))

        async def answer(updated: list[Updated]) -> messages.BatchUpdateAlertsResponse:
            warnings, omitted = await _fitting_warnings([one.warnings for one in updated], slices)
            answer = messages.BatchUpdateAlertsResponse(omitted_warning_count=omitted)
            answer.abridged_alert_count = await _add_alerts(
                answer.alerts, [one.definition for one in updated], slices
            )
            await add_in_slices(answer.warnings, warnings, slices)
            return answer

        answered = await self._once(
            "BatchUpdateAlerts", request, messages.BatchUpdateAlertsResponse, Steps(updates.plan, update, answer)
        )
        self._wake(request)
        return answered

    async def BatchArchiveAlerts(
        self, request: messages.BatchArchiveAlertsRequest, context: Context
    ) -> messages.BatchArchiveAlertsResponse:
        """Archives several alerts, or repeats the answer that the same request got before."""
        _check(request, "validate_only")
        organization_id, author = current_organization().organization_id, current_author()
        slices = Slices(organization_id)
        edits = await read_items(request.requests, _read_archiving, slices)
        _refuse_repeated(edits)

        async def read(connection: Connection) -> list[AlertDefinition] | None:
            return await changes.without_effect(connection, organization_id, edits)

        async def archive(change: OpenChange) -> list[AlertDefinition]:
            return await changes.edit_many(change_of(change, author), edits)

        async def answer(archived: list[AlertDefinition]) -> messages.BatchArchiveAlertsResponse:
            answer = messages.BatchArchiveAlertsResponse()
            answer.abridged_alert_count = await _add_alerts(answer.alerts, archived, slices)
            return answer

        return await self._once(
            "BatchArchiveAlerts", request, messages.BatchArchiveAlertsResponse, Steps(read, archive, answer)
        )

    async def _once(
        self, method: str, request: _Batch, answer_type: type[Answer], steps: Steps[Any, Answer]
    ) -> Answer:
        return await changed_once(
            self._changes, self._clock, method, request, answer_type, steps, rows=len(request.requests)
        )

    def _wake(self, request: _Batch) -> None:
        if not request.validate_only:
            self._backfills.wake(current_organization().organization_id)


def _check(request: _Batch, *unset: str) -> None:
    """Checks what the batch has as a whole. unset: the fields that its requests must not have."""
    violations = Violations()
    read_request_id(violations, request.request_id)
    check_items(violations, request.requests, unset)
    violations.raise_if_any()


def _read_archiving(request: messages.ArchiveAlertRequest) -> Edit:
    violations = Violations()
    alert_id = violations.identifier("alert_id", request.alert_id)
    etag = violations.text("etag", request.etag, max_length=MAX_ETAG_LENGTH)
    violations.raise_if_any()
    return changes.archiving(alert_id, etag, release_uniqueness_key=request.release_uniqueness_key)


def _refuse_repeated(edits: Sequence[Edit]) -> None:
    first: dict[str, int] = {}
    for index, edit in enumerate(edits):
        if (other := first.setdefault(edit.alert_id, index)) != index:
            raise ItemRefused(index, ItemsAlike(other, "alert_id"))


async def _add_alerts(
    field: AnswerField[alert_pb2.Alert], definitions: Sequence[AlertDefinition], slices: Slices
) -> int:
    """Adds the alerts to an answer; returns how many of them, the last ones, are abridged."""
    room, abridged = MAX_ALERT_BYTES, 0
    for definition in definitions:
        await slices.pause()
        if not abridged:
            whole = alert_message(definition)
            room -= whole.ByteSize()
            if room >= 0:
                field.append(whole)
                continue
        abridged += 1
        field.append(abridged_message(definition))
    return abridged


async def _fitting_warnings(
    of_requests: Sequence[list[warning_pb2.Warning]], slices: Slices
) -> tuple[list[warning_pb2.Warning], int]:
    """The warnings of an answer, with the paths of their fields in the batch, and how many are left out."""

    def found() -> Iterator[warning_pb2.Warning]:
        for index, warnings in enumerate(of_requests):
            for warning in warnings:
                warning.field = f"requests[{index}].{warning.field}"
                yield warning

    fit, _ = await fitting_in_slices(found(), MAX_WARNING_BYTES, slices)
    return fit, sum(map(len, of_requests)) - len(fit)
