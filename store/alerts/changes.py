"""Changes of alert definitions: update, enable, disable, archive, and the release of a uniqueness key.

Each takes the organization's lock exclusively until its transaction ends, and is recorded in the history. If there is
nothing to change, it does neither and returns the definition as it is.
"""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alert_commands import AlertPatch
from evaluator.definitions import AlertDefinition, DefinitionState, natural_key
from evaluator.thresholds import Threshold
from runtime.clock import Clock
from store.alerts import alerts, disabled_notices
from store.alerts import history as alert_history
from store.alerts.backfills import FROM_THE_BEGINNING
from store.alerts.history import Author, ChangeKind
from store.alerts.rows import columns_of
from store.identity import organizations
from store.tables.alerts import alert

# The newest retired thresholds are kept. A state in which an older one is reached drops it without a notification.
MAX_RETIRED = 200


class ChangeRefused(Exception):
    """The alert cannot be changed; the subclasses say why."""

    def __init__(self, alert_id: str) -> None:
        super().__init__(alert_id)
        self.alert_id = alert_id


class AlertUnknown(ChangeRefused):
    """The organization has no such alert."""


class AlertArchived(ChangeRefused):
    """The alert is archived. An archived alert does not change."""


class EtagMismatch(ChangeRefused):
    """The alert has another version than the one that the caller has seen."""

    def __init__(self, alert_id: str, version: int) -> None:
        super().__init__(alert_id)
        self.version = version


class NotArchived(ChangeRefused):
    """The alert is not archived, so it keeps its uniqueness key."""


async def changeable(connection: AsyncConnection, organization_id: int, alert_id: str, etag: str) -> AlertDefinition:
    """The definition of an alert that is not archived. Raises AlertUnknown, AlertArchived and EtagMismatch."""
    definition = await _existing(connection, organization_id, alert_id, etag)
    if definition.state is DefinitionState.ARCHIVED:
        raise AlertArchived(alert_id)
    return definition


async def edit(
    connection: AsyncConnection,
    organization_id: int,
    seen: AlertDefinition,
    etag: str,
    patch: AlertPatch,
    author: Author,
    clock: Clock,
) -> AlertDefinition:
    """Applies a patch; `seen` is the alert as `changeable` returned it.

    The changes of an active alert are evaluated at once, by ingest or by a backfill. A patch that changes nothing
    leaves the version as it is. Raises AlertUnknown, AlertArchived, EtagMismatch and AlertConflict.
    """
    if not patch.reset and patch.apply(seen) == seen:
        return seen
    epoch = await organizations.begin_change(connection, organization_id)
    # Another change may have been committed before this transaction got the lock.
    before = await changeable(connection, organization_id, seen.alert_id, etag)
    after = patch.apply(before)
    if not patch.reset and after == before:
        return before
    changed = _next_version(before, after, patch.reset, epoch, clock.now())
    kind = ChangeKind.UPDATED if after != before else ChangeKind.RESET
    try:
        await _write(connection, organization_id, changed, kind, author)
    except IntegrityError as error:
        raise await alerts.conflict_of(connection, organization_id, changed) from error
    return changed


def _next_version(
    before: AlertDefinition, after: AlertDefinition, reset: bool, epoch: int, now: datetime
) -> AlertDefinition:
    """`after` as the version that follows `before`, with what the evaluation needs to notice the change."""
    changed = replace(
        after,
        version=before.version + 1,
        changed_epoch=epoch,
        update_time=now,
        natural_key=natural_key(after.scope, after.condition),
    )
    if after.condition.measure != before.condition.measure:
        changed = replace(changed, watching_epoch=epoch, watching_time=now)
    thresholds_changed = (after.thresholds, after.condition) != (before.thresholds, before.condition)
    if thresholds_changed:
        changed = replace(changed, retired=_retired(before))
    if reset:
        changed = replace(changed, reset_version=changed.version)
    if (thresholds_changed or reset) and changed.state is DefinitionState.ACTIVE:
        changed = replace(changed, backfill_after=FROM_THE_BEGINNING)
    return changed


async def enable(
    connection: AsyncConnection, organization_id: int, alert_id: str, etag: str, author: Author, clock: Clock
) -> AlertDefinition:
    """Enables an alert. It is evaluated on its existing gauges at once; its states are kept.

    Raises AlertUnknown, AlertArchived and EtagMismatch.
    """
    definition = await changeable(connection, organization_id, alert_id, etag)
    if definition.state is DefinitionState.ACTIVE:
        return definition
    epoch = await organizations.begin_change(connection, organization_id)
    definition = await changeable(connection, organization_id, alert_id, etag)
    if definition.state is DefinitionState.ACTIVE:
        return definition
    now = clock.now()
    enabled = replace(
        definition,
        state=DefinitionState.ACTIVE,
        version=definition.version + 1,
        changed_epoch=epoch,
        watching_epoch=epoch,
        watching_time=now,
        backfill_after=FROM_THE_BEGINNING,
        update_time=now,
    )
    await _write(connection, organization_id, enabled, ChangeKind.ENABLED, author)
    return enabled


async def disable(
    connection: AsyncConnection, organization_id: int, alert_id: str, etag: str, author: Author, clock: Clock
) -> AlertDefinition:
    """Disables an alert until it is enabled again, and notifies of it.

    Raises AlertUnknown, AlertArchived and EtagMismatch.
    """
    definition = await changeable(connection, organization_id, alert_id, etag)
    if definition.state is DefinitionState.DISABLED:
        return definition
    epoch = await organizations.begin_change(connection, organization_id)
    definition = await changeable(connection, organization_id, alert_id, etag)
    if definition.state is DefinitionState.DISABLED:
        return definition
    disabled = replace(
        definition,
        state=DefinitionState.DISABLED,
        version=definition.version + 1,
        changed_epoch=epoch,
        backfill_after=None,
        update_time=clock.now(),
    )
    await _write(connection, organization_id, disabled, ChangeKind.DISABLED, author)
    await disabled_notices.notify(connection, organization_id, disabled, epoch, clock.now())
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
    """Archives an alert, which cannot be undone. An archived alert can still release its uniqueness key.

    Raises AlertUnknown and EtagMismatch.
    """
    definition = await _existing(connection, organization_id, alert_id, etag)
    if _archived(definition, release_uniqueness_key):
        return definition
    epoch = await organizations.begin_change(connection, organization_id)
    # Another change may have been committed before this transaction got the lock.
    definition = await _existing(connection, organization_id, alert_id, etag)
    if _archived(definition, release_uniqueness_key):
        return definition
    now = clock.now()
    ended = replace(
        definition,
        state=DefinitionState.ARCHIVED,
        uniqueness_key_held=definition.uniqueness_key_held and not release_uniqueness_key,
        natural_key=None,
        backfill_after=None,
        version=definition.version + 1,
        changed_epoch=epoch,
        update_time=now,
        archive_time=definition.archive_time or now,
    )
    again = definition.state is DefinitionState.ARCHIVED
    kind = ChangeKind.KEY_RELEASED if again else ChangeKind.ARCHIVED
    await _write(connection, organization_id, ended, kind, author)
    return ended


async def release_uniqueness_key(
    connection: AsyncConnection, organization_id: int, alert_id: str, author: Author, clock: Clock
) -> AlertDefinition:
    """Makes the uniqueness key of an archived alert usable by others. Raises AlertUnknown and NotArchived."""
    definition = await _existing(connection, organization_id, alert_id, "")
    if definition.state is not DefinitionState.ARCHIVED:
        raise NotArchived(alert_id)
    return await archive(connection, organization_id, alert_id, "", author, clock, release_uniqueness_key=True)


def _archived(definition: AlertDefinition, release: bool) -> bool:
    """Whether it is archived already and keeps no key that must be released."""
    still_held = release and definition.uniqueness_key_held
    return definition.state is DefinitionState.ARCHIVED and not still_held


def _retired(replaced: AlertDefinition) -> tuple[Threshold, ...]:
    """The retired thresholds after a definition is replaced: the older ones, then all of its own."""
    own = {threshold.key: threshold for threshold in replaced.all_thresholds}
    older = [threshold for threshold in replaced.retired if threshold.key not in own]
    return (*older[-MAX_RETIRED:], *own.values())


async def _existing(connection: AsyncConnection, organization_id: int, alert_id: str, etag: str) -> AlertDefinition:
    definition = await alerts.get(connection, organization_id, alert_id)
    if definition is None:
        raise AlertUnknown(alert_id)
    if etag and etag != str(definition.version):
        raise EtagMismatch(alert_id, definition.version)
    return definition


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
