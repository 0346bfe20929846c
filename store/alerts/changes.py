"""Changes of alert definitions: update, enable, disable, archive, and the release of a uniqueness key.

Each keeps ingest out until its transaction ends, unless there is nothing to do, and is noted in the history.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import AlertDefinition, Condition, DefinitionState, natural_key
from evaluator.thresholds import Threshold
from runtime.clock import Clock
from store.alerts import alerts
from store.alerts import history as alert_history
from store.alerts.backfills import FROM_THE_BEGINNING
from store.alerts.history import Author, ChangeKind
from store.alerts.rows import columns_of
from store.identity import organizations
from store.tables.alerts import alert

# Of versions before the last one, the newest; states that know one that fell off forget it without a word.
MAX_RETIRED = 200


class AlertUnknown(Exception):
    """The organization has no such alert."""


class AlertArchived(Exception):
    """The alert is archived, and stays as it is."""


class EtagMismatch(Exception):
    """The alert is not the version that the caller has seen."""

    def __init__(self, version: int) -> None:
        super().__init__(version)
        self.version = version


class NotArchived(Exception):
    """The alert is not archived: its uniqueness key is its own."""


@dataclass(frozen=True)
class Edit:
    """What an alert is to be. reset: what it remembers is forgotten, and everything is evaluated afresh."""

    name: str
    condition: Condition
    thresholds: tuple[Threshold, ...]
    reset: bool = False


async def edit(
    connection: AsyncConnection,
    organization_id: int,
    alert_id: str,
    etag: str,
    edit_of: Callable[[AlertDefinition], Edit],
    author: Author,
    clock: Clock,
) -> AlertDefinition:
    """Gives an alert another name, other thresholds, overrides or price filters.

    `edit_of` says what the stored definition becomes; it is asked again under the lock, and what it raises undoes
    everything. What changes is evaluated at once where the alert is active. An edit that changes nothing leaves the
    version as it is. Raises AlertUnknown, AlertArchived, EtagMismatch and AlertConflict.
    """
    current = await _current(connection, organization_id, alert_id, etag)
    if _same(current, edit_of(current)):
        return current
    epoch = await organizations.change(connection, organization_id)
    current = await _current(connection, organization_id, alert_id, etag)
    wanted = edit_of(current)
    if _same(current, wanted):
        return current
    now = clock.now()
    changed = replace(
        current,
        name=wanted.name,
        condition=wanted.condition,
        thresholds=wanted.thresholds,
        version=current.version + 1,
        changed_epoch=epoch,
        update_time=now,
        natural_key=natural_key(current.scope, wanted.condition),
    )
    if changed.condition.measure != current.condition.measure:
        changed = replace(changed, watching_epoch=epoch, watching_time=now)
    lines_changed = (changed.thresholds, changed.condition) != (current.thresholds, current.condition)
    if lines_changed:
        changed = replace(changed, retired=_retired(current))
    if wanted.reset:
        changed = replace(changed, reset_version=changed.version)
    if (lines_changed or wanted.reset) and changed.state is DefinitionState.ACTIVE:
        changed = replace(changed, visit_after=FROM_THE_BEGINNING)
    kind = ChangeKind.UPDATED if replace(wanted, reset=False) != _edit_of(current) else ChangeKind.RESET
    try:
        await _write(connection, organization_id, changed, kind, author)
    except IntegrityError as error:
        raise await alerts.conflict_of(connection, organization_id, changed) from error
    return changed


async def enable(
    connection: AsyncConnection, organization_id: int, alert_id: str, etag: str, author: Author, clock: Clock
) -> AlertDefinition:
    """Evaluates a disabled alert again, at once on everything there is; what it remembers stands.

    Raises AlertUnknown, AlertArchived and EtagMismatch.
    """
    current = await _current(connection, organization_id, alert_id, etag)
    if current.state is DefinitionState.ACTIVE:
        return current
    epoch = await organizations.change(connection, organization_id)
    current = await _current(connection, organization_id, alert_id, etag)
    if current.state is DefinitionState.ACTIVE:
        return current
    now = clock.now()
    enabled = replace(
        current,
        state=DefinitionState.ACTIVE,
        version=current.version + 1,
        changed_epoch=epoch,
        watching_epoch=epoch,
        watching_time=now,
        visit_after=FROM_THE_BEGINNING,
        update_time=now,
    )
    await _write(connection, organization_id, enabled, ChangeKind.ENABLED, author)
    return enabled


async def disable(
    connection: AsyncConnection, organization_id: int, alert_id: str, etag: str, author: Author, clock: Clock
) -> AlertDefinition:
    """Evaluates an alert no more until it is enabled. Raises AlertUnknown, AlertArchived and EtagMismatch."""
    current = await _current(connection, organization_id, alert_id, etag)
    if current.state is DefinitionState.DISABLED:
        return current
    epoch = await organizations.change(connection, organization_id)
    current = await _current(connection, organization_id, alert_id, etag)
    if current.state is DefinitionState.DISABLED:
        return current
    disabled = replace(
        current,
        state=DefinitionState.DISABLED,
        version=current.version + 1,
        changed_epoch=epoch,
        visit_after=None,
        update_time=clock.now(),
    )
    await _write(connection, organization_id, disabled, ChangeKind.DISABLED, author)
    return disabled


async def archive(
    connection: AsyncConnection,
    organization_id: int,
    alert_id: str,
    etag: str,
    author: Author,
    clock: Clock,
    *,
    release_uniqueness_key: bool,
) -> AlertDefinition:
    """Ends an alert for good; one that is archived already stays as it is, but may still release its key.

    Raises AlertUnknown and EtagMismatch.
    """
    current = await _known(connection, organization_id, alert_id, etag)
    if _archived(current, release_uniqueness_key):
        return current
    epoch = await organizations.change(connection, organization_id)
    # Somebody else may have archived it while this waited for the lock.
    current = await _known(connection, organization_id, alert_id, etag)
    if _archived(current, release_uniqueness_key):
        return current
    now = clock.now()
    ended = replace(
        current,
        state=DefinitionState.ARCHIVED,
        uniqueness_key_held=current.uniqueness_key_held and not release_uniqueness_key,
        natural_key=None,
        visit_after=None,
        version=current.version + 1,
        changed_epoch=epoch,
        update_time=now,
        archive_time=current.archive_time or now,
    )
    again = current.state is DefinitionState.ARCHIVED
    kind = ChangeKind.KEY_RELEASED if again else ChangeKind.ARCHIVED
    await _write(connection, organization_id, ended, kind, author)
    return ended


async def release_uniqueness_key(
    connection: AsyncConnection, organization_id: int, alert_id: str, author: Author, clock: Clock
) -> AlertDefinition:
    """Lets others use the uniqueness key of an archived alert. Raises AlertUnknown and NotArchived."""
    current = await _known(connection, organization_id, alert_id, "")
    if current.state is not DefinitionState.ARCHIVED:
        raise NotArchived
    return await archive(connection, organization_id, alert_id, "", author, clock, release_uniqueness_key=True)


def _archived(definition: AlertDefinition, release: bool) -> bool:
    """Whether archiving it would change nothing."""
    still_held = release and definition.uniqueness_key_held
    return definition.state is DefinitionState.ARCHIVED and not still_held


def _retired(left: AlertDefinition) -> tuple[Threshold, ...]:
    """The thresholds of former versions, once that definition is one: all of its own, after older ones."""
    own = {threshold.key: threshold for threshold in left.all_thresholds}
    older = [threshold for threshold in left.retired if threshold.key not in own]
    return (*older[-MAX_RETIRED:], *own.values())


def _edit_of(definition: AlertDefinition) -> Edit:
    return Edit(definition.name, definition.condition, definition.thresholds)


def _same(current: AlertDefinition, wanted: Edit) -> bool:
    return wanted == _edit_of(current)


async def _known(connection: AsyncConnection, organization_id: int, alert_id: str, etag: str) -> AlertDefinition:
    current = await alerts.get(connection, organization_id, alert_id)
    if current is None:
        raise AlertUnknown
    if etag and etag != str(current.version):
        raise EtagMismatch(current.version)
    return current


async def _current(connection: AsyncConnection, organization_id: int, alert_id: str, etag: str) -> AlertDefinition:
    current = await _known(connection, organization_id, alert_id, etag)
    if current.state is DefinitionState.ARCHIVED:
        raise AlertArchived
    return current


async def _write(
    connection: AsyncConnection, organization_id: int, changed: AlertDefinition, kind: ChangeKind, author: Author
) -> None:
    async with connection.begin_nested():
        await connection.execute(
            update(alert)
            .where(alert.c.organization_id == organization_id, alert.c.alert_id == changed.alert_id)
            .values(columns_of(changed))
        )
    await alert_history.record(connection, organization_id, kind, changed, author, changed.update_time)
