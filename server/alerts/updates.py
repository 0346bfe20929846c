"""Updates of alerts, one or many in one change: which alert each request is about, and what it changes of it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from evaluator.alert_commands import NewAlert
from evaluator.definitions import AlertDefinition, DefinitionState
from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import warning_pb2
from runtime.turns import Slices
from server.alerts.batch_items import read_items
from server.alerts.errors import alert_with_key_not_found
from server.alerts.id_warnings import warnings_of
from server.calls.validation import Violations
from server.mapping import unknown_ids
from server.mapping.alert_updates import check_state_policy, read_patch
from server.mapping.alerts import MAX_UNIQUENESS_KEY_LENGTH, read_new_alert, refuse_large
from server.mapping.unknown_ids import NamedIds
from store.alerts import alerts, changes, creation
from store.alerts.change import Change, ItemRefused, ItemsAlike
from store.alerts.changes import AlertUnknown, Edit
from store.alerts.creation import AlertConflict, UniqueBy

MAX_ETAG_LENGTH = 32  # characters


@dataclass(frozen=True)
class Updated:
    """An alert after its update. created: it did not exist before."""

    definition: AlertDefinition
    warnings: list[warning_pb2.Warning]
    created: bool


@dataclass(frozen=True)
class _Address:
    """The alert of a request: alert_id, or if that is empty, the alert that has the uniqueness key."""

    request: messages.UpdateAlertRequest
    alert_id: str
    uniqueness_key: str
    etag: str

    @property
    def may_create(self) -> bool:
        return self.request.allow_missing and not self.alert_id and not self.etag


# What to do for one request.
_Step = Edit | NewAlert


async def update(change: Change, request: messages.UpdateAlertRequest) -> Updated:
    """Makes one update. Raises InvalidArgument, NotFound, and what `changes.edit` and `creation.create` raise."""
    try:
        [updated] = await update_all(change, [request])
    except ItemRefused as refused:
        raise refused.cause from None
    return updated


async def update_all(change: Change, requests: Sequence[messages.UpdateAlertRequest]) -> list[Updated]:
    """Makes several updates of different alerts, in the order of the requests.

    Raises ItemRefused with what `update` raises, or with ItemsAlike where two requests are about the same alert.
    """
    addresses = await read_items(requests, _read_address, Slices(change.organization_id))
    found, steps = await _plan(change, addresses)
    named = [_named(step, before) for step, before in zip(steps, found, strict=True)]
    warnings = await warnings_of(change.connection, change.organization_id, named)
    if any(isinstance(step, NewAlert) for step in steps):
        # Another transaction may have created some of them before this one got the lock.
        await change.begin()
        found, steps = await _plan(change, addresses)
    done = await _apply(change, steps)
    _refuse_grown(found, done)
    return [
        Updated(definition, warned, isinstance(step, NewAlert))
        for definition, warned, step in zip(done, warnings, steps, strict=True)
    ]


def _read_address(request: messages.UpdateAlertRequest) -> _Address:
    violations, sent = Violations(), request.alert
    address = _Address(
        request,
        violations.identifier("alert.alert_id", sent.alert_id, required=not sent.uniqueness_key),
        violations.text("alert.uniqueness_key", sent.uniqueness_key, max_length=MAX_UNIQUENESS_KEY_LENGTH),
        violations.text("alert.etag", sent.etag, max_length=MAX_ETAG_LENGTH),
    )
    violations.raise_if_any()
    return address


async def _find(change: Change, addresses: Sequence[_Address]) -> list[AlertDefinition | None]:
    where = change.connection, change.organization_id
    by_id = await alerts.get_many(*where, [one.alert_id for one in addresses if one.alert_id])
    by_key = await alerts.having_keys(*where, [one.uniqueness_key for one in addresses if not one.alert_id])
    return [by_id.get(one.alert_id) if one.alert_id else by_key.get(one.uniqueness_key) for one in addresses]


async def _plan(change: Change, addresses: Sequence[_Address]) -> tuple[list[AlertDefinition | None], list[_Step]]:
    """The alerts as they are, and what to do for each request."""
    found = await _find(change, addresses)
    pairs = list(zip(addresses, found, strict=True))
    steps = await read_items(pairs, lambda pair: _step(*pair), Slices(change.organization_id))
    _refuse_repeated(steps)
    return found, steps


def _step(address: _Address, found: AlertDefinition | None) -> _Step:
    if found is None:
        if address.may_create:
            violations = Violations()
            check_state_policy(violations, address.request)
            return read_new_alert(violations, address.request)
        if address.alert_id:
            raise AlertUnknown(address.alert_id)
        raise alert_with_key_not_found(address.uniqueness_key)
    if (problem := changes.problem_of(found, address.etag)) is not None:
        raise problem
    patch = read_patch(found, address.request)
    if found.state is DefinitionState.ARCHIVED and address.may_create and patch.state is not DefinitionState.ARCHIVED:
        raise AlertConflict(UniqueBy.UNIQUENESS_KEY, found.alert_id, address.uniqueness_key)
    return Edit(found.alert_id, patch, address.etag)


def _refuse_repeated(steps: Sequence[_Step]) -> None:
    first: dict[str, int] = {}
    for index, step in enumerate(steps):
        if isinstance(step, Edit) and (other := first.setdefault(step.alert_id, index)) != index:
            raise ItemRefused(index, ItemsAlike(other, "alert.alert_id"))


def _named(step: _Step, before: AlertDefinition | None) -> NamedIds:
    """The ids in the alert as the request wants it."""
    if isinstance(step, NewAlert):
        return unknown_ids.of_alert(step.scope, step.condition, step.thresholds)
    assert before is not None, "only an alert that exists is edited"
    return unknown_ids.of_alert(before.scope, before.condition, step.patch.apply(before).thresholds)


async def _apply(change: Change, steps: Sequence[_Step]) -> list[AlertDefinition]:
    edits = {index: step for index, step in enumerate(steps) if isinstance(step, Edit)}
    new = {index: step for index, step in enumerate(steps) if isinstance(step, NewAlert)}
    done = dict[int, AlertDefinition]()
    if edits:
        with _indexes_of_requests(list(edits)):
            done |= zip(edits, await changes.edit_many(change, list(edits.values())), strict=True)
    if new:
        with _indexes_of_requests(list(new)):
            done |= zip(new, await creation.create_many(change, list(new.values())), strict=True)
    return [done[index] for index in range(len(steps))]


@contextmanager
def _indexes_of_requests(indexes: Sequence[int]) -> Iterator[None]:
    """Gives an error of some items the indexes that their requests have."""
    try:
        yield
    except ItemRefused as refused:
        cause = refused.cause
        if isinstance(cause, ItemsAlike):
            cause = ItemsAlike(indexes[cause.other], cause.key)
        raise ItemRefused(indexes[refused.index], cause) from None


def _refuse_grown(before: Sequence[AlertDefinition | None], after: Sequence[AlertDefinition]) -> None:
    """Refuses an alert that is too large because another change was committed after its request was checked."""
    for index, (seen, changed) in enumerate(zip(before, after, strict=True)):
        if seen is not None and changed.version > seen.version + 1:
            violations = Violations()
            refuse_large(violations, changed)
            if violations.found:
                raise ItemRefused(index, violations.error())
