"""Updates of alerts, one or many in one change: the alert of each request, and what the request changes of it."""

from collections.abc import Iterator, Mapping, Sequence
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
from server.mapping.alerts import MAX_UNIQUENESS_KEY_LENGTH, read_new_alert
from server.mapping.unknown_ids import NamedIds
from store.alerts import alerts, changes, creation
from store.alerts.change import Change, ItemRefused, ItemsAlike
from store.alerts.changes import AlertUnknown, Edit
from store.alerts.drafts import draft
from store.alerts.unique_keys import AlertConflict, UniqueBy
from store.postgres.database import Connection

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


@dataclass(frozen=True)
class _Plan:
    """The alerts as they are, and what to do for each request."""

    found: list[AlertDefinition | None]
    steps: list[_Step]


class Updates:
    """Updates of different alerts by one caller: planned before the lock, and made under it."""

    def __init__(self, organization_id: int, requests: Sequence[messages.UpdateAlertRequest]) -> None:
        self._organization_id = organization_id
        self._requests = requests
        self._addresses: list[_Address] = []
        self._plan = _Plan([], [])
        self._warnings: list[list[warning_pb2.Warning]] = []

    async def plan(self, connection: Connection) -> list[Updated] | None:
        """Reads the alerts and checks the requests; returns the alerts if nothing is to be changed.

        Raises ItemRefused with InvalidArgument, NotFound, and what `edit_many` and `create_many` raise of an item, or
        with ItemsAlike where two requests are about the same alert.
        """
        slices = Slices(self._organization_id)
        self._addresses = await read_items(self._requests, _read_address, slices)
        found = await self._find(connection)
        pairs = list(zip(self._addresses, found, strict=True))
        steps = await read_items(pairs, lambda pair: _step(*pair), slices)
        _refuse_repeated(steps)
        self._plan = _Plan(found, steps)
        named = [_named(step, before) for step, before in zip(steps, found, strict=True)]
        self._warnings = await warnings_of(connection, self._organization_id, named)
        unchanged = [
            before
            for step, before in zip(steps, found, strict=True)
            if isinstance(step, Edit) and before is not None and changes.is_without_effect(step, before)
        ]
        return self._updated(unchanged, steps) if len(unchanged) == len(steps) else None

    async def make(self, change: Change) -> list[Updated]:
        """Makes the updates, under the lock; raises what `plan` raises."""
        found = await self._find(change.connection)
        triples = list(zip(self._addresses, found, range(len(found)), strict=True))
        steps = await read_items(triples, lambda one: self._step_now(*one), Slices(self._organization_id))
        _refuse_repeated(steps)
        known = {one.alert_id: one for one in found if one is not None}
        return self._updated(await _apply(change, steps, known), steps)

    def _step_now(self, address: _Address, found: AlertDefinition | None, index: int) -> _Step:
        """The step as it was planned, unless another change of the alert was committed since."""
        before = self._plan.found[index]
        if found is None or before is None:
            same = found is before
        else:
            same = (found.alert_id, found.version) == (before.alert_id, before.version)
        return self._plan.steps[index] if same else _step(address, found)

    async def _find(self, connection: Connection) -> list[AlertDefinition | None]:
        where, addresses = (connection, self._organization_id), self._addresses
        by_id = await alerts.get_many(*where, [one.alert_id for one in addresses if one.alert_id])
        by_key = await alerts.having_keys(*where, [one.uniqueness_key for one in addresses if not one.alert_id])
        return [by_id.get(one.alert_id) if one.alert_id else by_key.get(one.uniqueness_key) for one in addresses]

    def _updated(self, done: Sequence[AlertDefinition], steps: Sequence[_Step]) -> list[Updated]:
        return [
            Updated(definition, warned, isinstance(step, NewAlert))
            for definition, warned, step in zip(done, self._warnings, steps, strict=True)
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
    edit = Edit(found.alert_id, patch, address.etag)
    if (refused := changes.refusal(edit, found)) is not None:
        raise refused
    return edit


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


async def _apply(
    change: Change, steps: Sequence[_Step], known: Mapping[str, AlertDefinition]
) -> list[AlertDefinition]:
    """Makes the steps under the lock. known: the alerts by id, as the transaction has read them."""
    edits = {index: step for index, step in enumerate(steps) if isinstance(step, Edit)}
    new = {index: step for index, step in enumerate(steps) if isinstance(step, NewAlert)}
    done = dict[int, AlertDefinition]()
    if edits:
        with _indexes_of_requests(list(edits)):
            done |= zip(edits, await changes.edit_many(change, list(edits.values()), known), strict=True)
    if new:
        with _indexes_of_requests(list(new)):
            drafts = [draft(one, change.author) for one in new.values()]
            done |= zip(new, await creation.create_many(change, drafts), strict=True)
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
