"""Changes of alert definitions: edits, among them those of the state, and the release of a uniqueness key.

All edits of one change share its lock and its epoch, and each is recorded in the history. `without_effect` finds out
before whether there is nothing to change, so that neither the lock nor a new epoch is taken.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import bindparam, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alert_commands import AlertPatch
from evaluator.definitions import AlertDefinition, DefinitionState, natural_key
from evaluator.gauges import Group
from evaluator.overrides import RetiredThreshold
from runtime.turns import Slices
from store.alerts import alerts, disabled_notices, unique_keys
from store.alerts import history as alert_history
from store.alerts.backfills import FROM_THE_BEGINNING
from store.alerts.change import Begun, Change, ItemRefused
from store.alerts.history import ChangeKind
from store.alerts.rows import columns_of
from store.tables.alerts import alert

# The newest retired thresholds are kept. A state in which an older one is reached drops it without a notification.
MAX_RETIRED = 200
WRITTEN_AT_ONCE = 100  # rows of one statement: the event loop serves other calls between two


class EditRefused(Exception):
    """The alert cannot be changed; the subclasses say why."""

    def __init__(self, alert_id: str) -> None:
        super().__init__(alert_id)
        self.alert_id = alert_id


class AlertUnknown(EditRefused):
    """The organization has no such alert."""


class AlertArchived(EditRefused):
    """The alert is archived. An archived alert does not change."""


class EtagMismatch(EditRefused):
    """The alert has another version than the one that the caller has seen."""

    def __init__(self, alert_id: str, version: int) -> None:
        super().__init__(alert_id)
        self.version = version


class NotArchived(EditRefused):
    """The alert is not archived, so it keeps its uniqueness key."""


@dataclass(frozen=True)
class Edit:
    """What to change of one alert. etag: the version that the caller has seen; empty for any."""

    alert_id: str
    patch: AlertPatch
    etag: str = ""


async def edit_many(
    change: Change, edits: Sequence[Edit], known: Mapping[str, AlertDefinition] | None = None
) -> list[AlertDefinition]:
    """Applies edits of different alerts; returns the alerts in the order of the edits.

    What changed of an active alert is evaluated at once, by ingest or by a backfill. An edit that changes nothing
    leaves the version as it is. known: the alerts by id, if the transaction has read them under the lock. Raises
    ItemRefused with AlertUnknown, AlertArchived, EtagMismatch, AlertConflict or ItemsAlike.
    """
    where, begun = (change.connection, change.organization_id), change.begun
    # Another change may have been committed before this transaction got the lock.
    current = _checked(edits, known) if known is not None else await _read(*where, edits)
    written, kinds = dict[int, AlertDefinition](), list[ChangeKind]()
    slices = Slices(change.organization_id)
    slices.begin_at_once()
    for index, (one, before) in enumerate(zip(edits, current, strict=True)):
        if not is_without_effect(one, before):
            after = one.patch.apply(before)
            kinds.append(_kind(before, after))
            written[index] = _next_version(before, after, one.patch.reset, begun)
        await slices.pause()
    if written:
        moved = [
            after.alert_id for index, after in written.items() if after.natural_key != current[index].natural_key
        ]
        await _write(change, written, kinds, moved)
        for index, after in written.items():
            change.record(current[index], after)
            await slices.pause()
    disabled = [
        after
        for index, after in written.items()
        if after.state is DefinitionState.DISABLED and current[index].state is not DefinitionState.DISABLED
    ]
    await disabled_notices.notify(*where, disabled, begun.epoch, begun.now)
    return [written.get(index, before) for index, before in enumerate(current)]


async def without_effect(
    connection: AsyncConnection, organization_id: int, edits: Sequence[Edit]
) -> list[AlertDefinition] | None:
    """The alerts, if none of the edits changes anything; otherwise None. Raises ItemRefused as `edit_many`.

    It needs no lock: if the alerts change meanwhile, the edits came before.
    """
    seen = await _read(connection, organization_id, edits)
    slices = Slices(organization_id)
    slices.begin_at_once()
    for one, before in zip(edits, seen, strict=True):
        if not is_without_effect(one, before):
            return None
        await slices.pause()
    return seen


def enabling(alert_id: str, etag: str = "") -> Edit:
    """The edit that evaluates an alert again, at once on its existing gauges; its states are kept."""
    return Edit(alert_id, AlertPatch(state=DefinitionState.ACTIVE), etag)


def disabling(alert_id: str, etag: str = "") -> Edit:
    """The edit that stops the evaluation of an alert until it is enabled again."""
    return Edit(alert_id, AlertPatch(state=DefinitionState.DISABLED), etag)


def archiving(alert_id: str, etag: str = "", *, release_uniqueness_key: bool = False) -> Edit:
    """The edit that archives an alert, which cannot be undone. An archived alert can still release its key."""
    patch = AlertPatch(state=DefinitionState.ARCHIVED, release_uniqueness_key=release_uniqueness_key)
    return Edit(alert_id, patch, etag)


async def releasing(connection: AsyncConnection, organization_id: int, alert_id: str) -> Edit:
    """The edit that makes the uniqueness key of an archived alert usable by others.

    Raises AlertUnknown and NotArchived.
    """
    found = await alerts.get(connection, organization_id, alert_id)
    if found is None:
        raise AlertUnknown(alert_id)
    if found.state is not DefinitionState.ARCHIVED:
        raise NotArchived(alert_id)
    return archiving(alert_id, release_uniqueness_key=True)


async def _read(connection: AsyncConnection, organization_id: int, edits: Sequence[Edit]) -> list[AlertDefinition]:
    """The alerts to edit. Raises ItemRefused for the first that cannot be edited."""
    return _checked(edits, await alerts.get_many(connection, organization_id, [one.alert_id for one in edits]))


def _checked(edits: Sequence[Edit], found: Mapping[str, AlertDefinition]) -> list[AlertDefinition]:
    for index, one in enumerate(edits):
        if (problem := refusal(one, found.get(one.alert_id))) is not None:
            raise ItemRefused(index, problem)
    return [found[one.alert_id] for one in edits]


def problem_of(found: AlertDefinition, etag: str) -> EtagMismatch | None:
    """Why no edit of the version `etag` can be made; None where one can. An empty etag is any version."""
    return EtagMismatch(found.alert_id, found.version) if etag and etag != str(found.version) else None


def refusal(wanted: Edit, found: AlertDefinition | None) -> EditRefused | None:
    """Why the alert cannot be edited so; None if it can."""
    if found is None:
        return AlertUnknown(wanted.alert_id)
    if (problem := problem_of(found, wanted.etag)) is not None:
        return problem
    if found.state is DefinitionState.ARCHIVED and not _only_archives(wanted.patch, found):
        return AlertArchived(wanted.alert_id)
    return None


def _only_archives(patch: AlertPatch, archived: AlertDefinition) -> bool:
    """Whether a patch archives an alert that is archived already, and at most releases its key."""
    after = replace(patch.apply(archived), uniqueness_key_held=archived.uniqueness_key_held)
    return patch.state is DefinitionState.ARCHIVED and not patch.reset and after == archived


def is_without_effect(wanted: Edit, before: AlertDefinition) -> bool:
    """Whether the edit leaves the alert as it is."""
    return not wanted.patch.reset and wanted.patch.apply(before) == before


def _kind(before: AlertDefinition, after: AlertDefinition) -> ChangeKind:
    if before.state is DefinitionState.ARCHIVED:
        return ChangeKind.KEY_RELEASED
    if after.state is DefinitionState.ARCHIVED:
        return ChangeKind.ARCHIVED
    if after == before:
        return ChangeKind.RESET
    if replace(after, state=before.state) != before:
        return ChangeKind.UPDATED
    return ChangeKind.ENABLED if after.state is DefinitionState.ACTIVE else ChangeKind.DISABLED


def _next_version(before: AlertDefinition, after: AlertDefinition, reset: bool, begun: Begun) -> AlertDefinition:
    """`after` as the version that follows `before`, with what the evaluation needs to notice the change."""
    changed = replace(
        after,
        version=before.version + 1,
        changed_epoch=begun.epoch,
        update_time=begun.now,
        natural_key=natural_key(after.scope, after.condition),
    )
    enabled = after.state is DefinitionState.ACTIVE and before.state is not DefinitionState.ACTIVE
    if enabled or after.condition.measure != before.condition.measure:
        changed = replace(changed, watching_epoch=begun.epoch, watching_time=begun.now)
    thresholds_changed = (after.thresholds, after.condition) != (before.thresholds, before.condition)
    if thresholds_changed:
        changed = replace(changed, retired=_retired(before))
    if reset:
        changed = replace(changed, reset_version=changed.version)
    if after.state is not DefinitionState.ACTIVE:
        changed = replace(changed, backfill_after=None)
    elif enabled or thresholds_changed or reset:
        changed = replace(changed, backfill_after=FROM_THE_BEGINNING)
    if after.state is DefinitionState.ARCHIVED:
        changed = replace(changed, natural_key=None, archive_time=before.archive_time or begun.now)
    return changed


def _retired(replaced: AlertDefinition) -> tuple[RetiredThreshold, ...]:
    """The retired thresholds after a definition is replaced: the older ones, then all of its own."""
    own: dict[tuple[str, Group], RetiredThreshold] = {
        (one.key, ()): RetiredThreshold(one) for one in replaced.thresholds
    }
    for override in replaced.condition.overrides:
        for one in override.thresholds:
            # Most overrides repeat some thresholds of the alert.
            if own.get((one.key, ())) != RetiredThreshold(one):
                own[one.key, override.binding] = RetiredThreshold(one, override.binding)
    older = [one for one in replaced.retired if (one.threshold.key, one.bound) not in own]
    return (*older[-MAX_RETIRED:], *own.values())


_UPDATE = update(alert).where(
    alert.c.organization_id == bindparam("of_organization"), alert.c.alert_id == bindparam("of_alert")
)


async def _write(
    change: Change, written: dict[int, AlertDefinition], kinds: Sequence[ChangeKind], moved: Sequence[str]
) -> None:
    """Stores new versions, by the index of their edit. Raises ItemRefused with AlertConflict or ItemsAlike.

    moved: the ids of those with another natural key than before.
    """
    connection, definitions = change.connection, list(written.values())
    unique_keys.refuse_alike(written)
    try:
        async with connection.begin_nested():
            if len(moved) > 1:
                # One of them can take the key that another has until its own row is written.
                of_moved = alert.c.organization_id == change.organization_id, alert.c.alert_id.in_(moved)
                await connection.execute(update(alert).where(*of_moved).values(natural_key=None))
            for start in range(0, len(definitions), WRITTEN_AT_ONCE):
                rows = [
                    {"of_organization": change.organization_id, "of_alert": one.alert_id, **columns_of(one)}
                    for one in definitions[start : start + WRITTEN_AT_ONCE]
                ]
                await connection.execute(_UPDATE, rows)
    except IntegrityError:
        for index, one in written.items():
            conflict = await unique_keys.find_conflict(connection, change.organization_id, one, moved)
            if conflict is not None:
                raise ItemRefused(index, conflict) from None
        raise
    changes = list(zip(kinds, definitions, strict=True))
    for start in range(0, len(changes), WRITTEN_AT_ONCE):
        part = changes[start : start + WRITTEN_AT_ONCE]
        await alert_history.record_many(connection, change.organization_id, part, change.author, change.begun.now)
