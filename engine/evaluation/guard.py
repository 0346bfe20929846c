"""The guard against groups without end: an alert that meets too many is disabled for that customer, and says so.

Whoever makes a new group counts it under the lock of the count, so that one transaction finds out, and tells it in
a notification. Other processes learn of it when they make a new group of that alert, or with the next change of the
rules: until then they may make a few groups that nobody looks at, and never evaluate any, since the exclusion is read
anew by every evaluation that it could matter to.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from evaluator.alerts import AlertRule
from evaluator.exclusions import MAX_GROUPS, Excluded, ExclusionReason
from evaluator.notifications import DisabledNotification
from evaluator.transitions import Cause
from evaluator.watched_gauges import WatchedGauge as Watch
from runtime.turns import Slices
from store.alerts import exclusions
from store.alerts.exclusions import Counted, Groups
from store.postgres.database import DriverConnection


class Look(NamedTuple):
    """A locked gauge that is about to be evaluated; cause: the first event that moves it now, if any does."""

    watch: Watch
    visited_epoch: int
    cause: Cause | None


@dataclass(frozen=True)
class Guarded:
    """What the guard says of the gauges of one evaluation.

    quiet: by gauge id and alert id, what is not to be evaluated. disabled: what is to be told. excluded: what
    routers need not watch any more, once this transaction is committed.
    """

    quiet: set[tuple[UUID, str]] = field(default_factory=set)
    disabled: list[DisabledNotification] = field(default_factory=list)
    excluded: set[Excluded] = field(default_factory=set)


async def guard(
    connection: DriverConnection,
    organization_id: int,
    organization: str,
    epoch: int,
    now: datetime,
    looks: Sequence[Look],
) -> Guarded:
    """Counts the groups that alerts meet for the first time, and excludes customers that have too many.

    looks: in the order in which their groups came. Of those of one transaction the first ones up to the limit are
    evaluated, the others never are.
    """
    guarded = Guarded()
    slices, fans = Slices(organization_id), list[tuple[Look, AlertRule]]()
    for look in looks:
        fans += [(look, rule) for rule in look.watch.alerts if rule.fans_out]
        await slices.pause()
    if not fans:
        return guarded
    customer_ids = sorted({look.watch.gauge.customer_id for look, _ in fans})
    known = await exclusions.of_customers(connection, organization_id, customer_ids)
    new: dict[Groups, list[tuple[Look, AlertRule]]] = {}
    for look, rule in fans:
        await slices.pause()
        gauge = look.watch.gauge
        whole = Excluded(gauge.customer_id, rule.alert_id, None)
        own = Excluded(gauge.customer_id, rule.alert_id, gauge.subscription_id)
        if whole in known or own in known:
            guarded.quiet.add((gauge.gauge_id, rule.alert_id))
            guarded.excluded.add(whole if whole in known else own)
        # Groups that others had made before this customer came to be covered are missed. They had a guard, too.
        elif look.visited_epoch < rule.watching_epoch:
            groups = Groups(gauge.customer_id, rule.alert_id, gauge.subscription_id, gauge.period.start)
            new.setdefault(groups, []).append((look, rule))
    if new:
        await _count(connection, organization_id, organization, epoch, now, new, guarded)
    return guarded


async def _count(
    connection: DriverConnection,
    organization_id: int,
    organization: str,
    epoch: int,
    now: datetime,
    new: dict[Groups, list[tuple[Look, AlertRule]]],
    guarded: Guarded,
) -> None:
    counted = [Counted(groups, met[0][1].watching_epoch, len(met)) for groups, met in new.items()]
    totals = await exclusions.count(connection, organization_id, counted)
    first_over: dict[Excluded, tuple[Look, AlertRule]] = {}
    for groups, met in new.items():
        over = min(totals[groups] - MAX_GROUPS, len(met))
        if over > 0:
            late = met[-over:]
            guarded.quiet.update((look.watch.gauge.gauge_id, rule.alert_id) for look, rule in late)
            first_over.setdefault(Excluded(groups.customer_id, groups.alert_id, None), late[0])
    if not first_over:
        return
    reason = ExclusionReason.GROUP_LIMIT
    made = await exclusions.exclude(connection, organization_id, first_over.keys(), reason, epoch, now)
    guarded.excluded.update(first_over)
    for excluded, (look, rule) in first_over.items():
        if excluded in made:  # else another transaction was faster, and has told of it
            guarded.disabled.append(
                DisabledNotification(organization, rule, look.watch.gauge, MAX_GROUPS, epoch, now, look.cause)
            )
