"""The group limit: an alert that meets too many groups of a customer is disabled for that customer.

The transaction that creates a group counts it under the lock of the count, so exactly one transaction finds that the
limit is exceeded; it writes the exclusion and a notification. Other processes read the exclusion when they create a
group of that alert, or with the next epoch. Until then they may create a few groups too many. They evaluate none of
them, because every evaluation that an exclusion could concern reads it anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from engine.evaluation.subjects import Subject
from engine.rules.transaction import Transaction
from evaluator.alerts import AlertRule
from evaluator.exclusions import Excluded, ExclusionReason
from evaluator.notifications import DisabledNotification
from evaluator.transitions import Cause
from store.alerts import exclusions
from store.alerts.exclusions import Groups, NewGroups
from store.audit import json_states, writing
from store.audit.entries import SERVER, Changed, NewEntry, ResourceType


class _Meeting(NamedTuple):
    """An alert that has a gauge for each group, and one of these gauges."""

    subject: Subject
    rule: AlertRule

    @property
    def key(self) -> tuple[UUID, str]:
        """Gauge and alert."""
        return self.subject.movement.watch.gauge.gauge_id, self.rule.alert_id


@dataclass(frozen=True)
class GroupLimit:
    """What the group limit means for the gauges of one evaluation.

    not_evaluated: by gauge id and alert id. disabled: notifications to be written. excluded: what routers need not
    watch any more after the transaction is committed.
    """

    not_evaluated: set[tuple[UUID, str]] = field(default_factory=set)
    disabled: list[DisabledNotification] = field(default_factory=list)
    excluded: set[Excluded] = field(default_factory=set)


async def apply_group_limit(transaction: Transaction, subjects: Sequence[Subject]) -> GroupLimit:
    """Counts the groups that alerts meet for the first time, and excludes customers that have too many.

    subjects: in the order in which their groups came. Of the groups of one transaction the first ones, up to the
    limit, are evaluated; the others never are.
    """
    applied = GroupLimit()
    slices, meetings = transaction.slices(), list[_Meeting]()
    for subject in subjects:
        meetings += [_Meeting(subject, rule) for rule in subject.movement.watch.watching.fanning_out]
        await slices.pause()
    if not meetings:
        return applied
    customer_ids = sorted({one.subject.movement.watch.gauge.customer_id for one in meetings})
    known = await exclusions.of_customers(transaction.driver, transaction.organization_id, customer_ids)
    new: dict[Groups, list[_Meeting]] = {}
    for meeting in meetings:
        await slices.pause()
        rule, gauge = meeting.rule, meeting.subject.movement.watch.gauge
        whole = Excluded(gauge.customer_id, rule.alert_id, None)
        own = Excluded(gauge.customer_id, rule.alert_id, gauge.subscription_id)
        if whole in known or own in known:
            applied.not_evaluated.add(meeting.key)
            applied.excluded.add(whole if whole in known else own)
        # Does not count gauges that other alerts created before this one covered the customer; those alerts counted
        # them.
        elif meeting.subject.rules_epoch < rule.watching_epoch:
            groups = Groups(gauge.customer_id, rule.alert_id, gauge.subscription_id, gauge.period.start)
            new.setdefault(groups, []).append(meeting)
    if new:
        await _count(transaction, new, applied)
    return applied


async def _count(transaction: Transaction, new: dict[Groups, list[_Meeting]], applied: GroupLimit) -> None:
    """Counts new groups, and excludes the customers that have too many."""
    counted = [NewGroups(groups, met[0].rule.watching_epoch, len(met)) for groups, met in new.items()]
    totals = await exclusions.count(transaction.driver, transaction.organization_id, counted)
    first_over: dict[Excluded, _Meeting] = {}
    for groups, met in new.items():
        over = min(totals[groups] - transaction.max_groups, len(met))
        if over > 0:
            too_many = met[-over:]
            applied.not_evaluated.update(one.key for one in too_many)
            first_over.setdefault(Excluded(groups.customer_id, groups.alert_id, None), too_many[0])
    if first_over:
        await _exclude(transaction, first_over, applied)


async def _exclude(transaction: Transaction, first_over: dict[Excluded, _Meeting], applied: GroupLimit) -> None:
    """Writes exclusions. first_over: each with the first group above the limit."""
    epoch, now = transaction.epoch, transaction.now
    made = await exclusions.exclude(
        transaction.driver,
        transaction.organization_id,
        first_over.keys(),
        ExclusionReason.GROUP_LIMIT,
        epoch,
        now,
    )
    applied.excluded.update(first_over)
    await _record(transaction, [excluded for excluded in first_over if excluded in made])
    for excluded, (subject, rule) in first_over.items():
        if excluded in made:  # otherwise another transaction was faster, and has notified
            gauge, name = subject.movement.watch.gauge, transaction.organization.name
            limit, cause = transaction.max_groups, _cause(subject)
            applied.disabled.append(DisabledNotification(name, rule, gauge, limit, epoch, now, cause))


async def _record(transaction: Transaction, made: Sequence[Excluded]) -> None:
    """Records new exclusions in the audit log."""
    entries = [
        NewEntry(
            SERVER,
            Changed(
                ResourceType.ALERT,
                one.alert_id,
                one.customer_id,
                after=json_states.too_many_groups(one.customer_id, one.subscription_id, transaction.now),
            ),
        )
        for one in made
    ]
    await writing.write(transaction.driver, transaction.organization_id, entries, transaction.now)


def _cause(subject: Subject) -> Cause | None:
    """The first event that moves a gauge; None where no event does."""
    entries = subject.movement.entries
    return Cause(entries[0][1].event_id, entries[0][1].event_time) if entries else None
