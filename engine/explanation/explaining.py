"""The reading of an explanation: one snapshot, in which the evaluation's own code decides about what is stored.

Cost: statements by key, a page of at most MAX_GAUGES gauges, and a sample of the customer's events. Of an alert with
a gauge for each group, PostgreSQL also puts the customer's gauges in order, of which one alert has 5,000 at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from engine.evaluation.recounting import take_count
from engine.evaluation.silence import Silence
from engine.evaluation.subjects import Movement, Subject, before_fold
from engine.explanation.coverage import (
    MAX_SUBSCRIPTIONS,
    Owner,
    check_backfill,
    check_exclusion,
    check_scope,
    check_state,
    owners_of,
    shown_time,
)
from engine.explanation.data import check_data
from engine.explanation.fact_gauges import explain_fact_gauges
from engine.explanation.findings import (
    Check,
    ExplainedGauge,
    Explanation,
    LimitSource,
    Reason,
    StepResult,
    end_of_grace,
)
from engine.explanation.questions import Found, FoundGauge, NotCovered, NotOfUsage, Question
from engine.explanation.usage_gauge import Situation, explain_usage_gauge, limit_source
from evaluator.alert_index import AlertIndex, WideAlerts
from evaluator.alerts import AlertRule
from evaluator.amounts import ZERO
from evaluator.definitions import AlertDefinition
from evaluator.gauges import Gauge, Group
from evaluator.routing import Router
from evaluator.routing_facts import CustomerFacts, MetricFacts, SubscriptionFacts
from evaluator.watched_gauges import CustomerMeasure, WatchedGauge
from store.accounts import customers
from store.alerts import alerts, exclusions
from store.alerts.changes import AlertUnknown
from store.alerts.exclusions import Groups
from store.alerts.states import read_states
from store.erasures.jobs import CustomerUnknown
from store.identity.organizations import current_epoch
from store.limits import effective_limits
from store.postgres.database import Connection, DriverConnection, driver
from store.postgres.snapshots import begin_snapshot
from store.rules import routing_facts
from store.usage import event_samples, gauges, recounts
from store.usage.event_samples import EventSample
from store.usage.gauges import NEVER_EVALUATED, Locked
from store.usage.holding_reservations import Holding, holding
from store.views import gauge_windows
from store.views.customer_views import CustomerView, is_computed
from store.views.gauge_windows import GaugeWindow
from store.views.held_of_gauges import read_held

MAX_HOLDS = 10  # reservations that are shown of a gauge
MAX_GAUGES = 20  # of one explanation


@dataclass(frozen=True)
class Explaining:
    """Explains alerts of one organization, in one transaction.

    connection: of a transaction that has not read anything. grace: how long after its end a period still counts late
    events. max_groups: the group limit of every alert.
    """

    connection: Connection
    organization_id: int
    now: datetime
    grace: timedelta
    max_groups: int

    async def explain(self, question: Question, draft: AlertDefinition | None = None) -> Explanation:
        """Explains an alert for a customer. Raises AlertUnknown and CustomerUnknown.

        draft: an alert that is not stored, which is explained as if it had just been created.
        """
        found = await self._found(question, draft)
        _, definition, rule, facts, subscriptions, owners = found
        steps = [check_scope(rule, facts, subscriptions, owners), check_state(definition)]
        if owners:
            reasons = await exclusions.reasons(self.connection, self.organization_id, facts.customer_id)
            steps.append(check_exclusion(rule, facts, owners, reasons))
        if any(one.reason is not Reason.PASSED for one in steps):
            return Explanation(definition, facts.customer_id, self.now, steps)
        if rule.measure.of_facts:
            return await self._of_facts(definition, rule, question, steps)
        return await _OfUsage(self, question, *found).explain(steps)

    async def watched_gauge(self, question: Question) -> FoundGauge | None:
        """The one gauge that a question names by its subscription and group; None if the alert has no such gauge.

        Raises AlertUnknown, CustomerUnknown, NotOfUsage, and NotCovered.
        """
        found = await self._found(question, None)
        if not found.owners:  # first: a key of another customer does not learn what the alert measures
            raise NotCovered(found.definition.alert_id)
        if found.rule.measure.of_facts:
            raise NotOfUsage(found.definition.alert_id)
        return await _OfUsage(self, question, *found).watched_gauge()

    async def _found(self, question: Question, draft: AlertDefinition | None) -> Found:
        """What a question is about, read in a snapshot that begins here."""
        await begin_snapshot(self.connection, by_index=True)
        raw = await driver(self.connection)
        found = await routing_facts.customers(raw, self.organization_id, [question.customer_id], with_alerts=False)
        if not found:
            raise CustomerUnknown(question.customer_id)
        [facts] = found
        if draft is None:
            definition = await alerts.get(self.connection, self.organization_id, question.alert_id)
        else:
            epoch = await current_epoch(self.connection, self.organization_id)
            definition = replace(draft, watching_epoch=epoch, changed_epoch=epoch, create_epoch=epoch)
        if definition is None:
            raise AlertUnknown(question.alert_id)
        rule = definition.to_rule()
        subscriptions = await self._subscriptions(raw, rule, question)
        return Found(raw, definition, rule, facts, subscriptions, owners_of(rule, facts, subscriptions))

    async def _subscriptions(
        self, raw: DriverConnection, rule: AlertRule, question: Question
    ) -> list[SubscriptionFacts]:
        """The subscriptions that may have gauges of the alert."""
        if not rule.measure.per_subscription:
            return []
        named = question.selection.subscription_id or rule.scope.subscription_id
        if named is not None:
            return await routing_facts.subscriptions(raw, self.organization_id, [(question.customer_id, named)])
        return await routing_facts.first_subscriptions(
            raw, self.organization_id, question.customer_id, MAX_SUBSCRIPTIONS
        )

    async def _of_facts(
        self, definition: AlertDefinition, rule: AlertRule, question: Question, steps: list[StepResult]
    ) -> Explanation:
        customer = await customers.get(self.connection, self.organization_id, question.customer_id)
        assert customer is not None  # it was read in the same snapshot
        view = CustomerView(self.connection, self.organization_id, customer, (), self.now)
        window = None if is_computed(rule.measure) else GaugeWindow(MAX_GAUGES + 1)
        found = await view.get(question.alert_id, question.selection, window)
        shown = () if found is None else sorted(found.gauges, key=lambda one: not one.state.in_alarm)
        explained = explain_fact_gauges(
            rule,
            shown[:MAX_GAUGES],
            [None if one.limit is None else LimitSource(one.limit, None) for one in shown[:MAX_GAUGES]],
            self.now,
        )
        steps.append(check_backfill(definition, question.customer_id))
        steps.append(check_data(rule, explained, None, metric_known=True))
        return Explanation(
            definition, question.customer_id, self.now, steps, explained, truncated=len(shown) > MAX_GAUGES
        )


@dataclass(frozen=True)
class _OfUsage:
    """The explanation of an alert on usage or cost."""

    base: Explaining
    question: Question
    raw: DriverConnection
    definition: AlertDefinition
    rule: AlertRule
    facts: CustomerFacts
    subscriptions: Sequence[SubscriptionFacts]
    owners: Sequence[Owner]

    async def explain(self, steps: list[StepResult]) -> Explanation:
        """Explains the gauges of the first owners, after the steps that were checked before."""
        at = self.question.period_time or self.base.now
        metric = await self._metric()
        router = await self._router(metric)
        measured = [
            (owner, found) for owner in self.owners if (found := self._measured(router, owner, at)) is not None
        ]
        sample = await self._sample(measured[0][1], at)
        watched, truncated = await self._watched(measured, at)
        groups = await self._groups(measured[0][1], at)
        explained = await self._explained(router, watched, sample, groups)
        steps.append(check_backfill(self.definition, self.facts.customer_id))
        steps.append(self._check_period(measured[0][1], at))
        known = self.rule.measure.metric_id is None or metric is not None
        steps.append(check_data(self.rule, explained, sample, metric_known=known))
        return Explanation(
            self.definition,
            self.facts.customer_id,
            self.base.now,
            steps,
            explained,
            truncated=truncated,
            counted=sample,
            groups=groups,
        )

    async def watched_gauge(self) -> FoundGauge | None:
        """The one gauge that the question names."""
        at = self.question.period_time or self.base.now
        group = self._known_group()
        if group is None:
            return None
        router = await self._router(await self._metric())
        for owner in self.owners:
            measured = self._measured(router, owner, at)
            watch = None if measured is None else measured.watched_gauge(group, at)
            if watch is not None:
                rows = await gauges.stored(self.raw, self.base.organization_id, [watch.gauge])
                row = rows.get(watch.gauge.gauge_id)
                return FoundGauge(watch, None if row is None else row[0].value)
        return None

    async def _metric(self) -> MetricFacts | None:
        metric_id = self.rule.measure.metric_id
        if metric_id is None:
            return None
        found = await routing_facts.metrics(self.raw, self.base.organization_id, [metric_id])
        return found[0] if found else None

    async def _router(self, metric: MetricFacts | None) -> Router:
        """A router with this alert and this customer only: it decides about them as that of ingest does."""
        plans = {one.plan_id for one in self.owners if one.plan_id is not None}
        limits = await effective_limits.of_plans(self.raw, self.base.organization_id, plans) if plans else {}
        is_wide = self.rule.scope.customer_id is None
        router = Router(0, WideAlerts([self.rule] if is_wide else ()), limits)
        if metric is not None:
            router.metrics[metric.metric_id] = metric
        router.know_customer(self.facts if is_wide else self.facts.with_alerts(AlertIndex([self.rule])))
        for one in self.subscriptions:
            router.know_subscription(one)
        return router

    def _measured(self, router: Router, owner: Owner, at: datetime) -> CustomerMeasure | None:
        return router.customer_measure(self.rule.measure, self.facts.customer_id, owner.subscription_id, at)

    async def _watched(
        self, measured: Sequence[tuple[Owner, CustomerMeasure]], at: datetime
    ) -> tuple[list[tuple[Owner, CustomerMeasure, WatchedGauge]], bool]:
        """The gauges that are explained, and whether there are more."""
        groups = self._known_group()
        if groups is not None:
            found = [
                (owner, one, watch)
                for owner, one in measured[: MAX_GAUGES + 1]
                if (watch := one.watched_gauge(groups, at)) is not None
            ]
        else:
            by_owner = {owner.subscription_id: (owner, one) for owner, one in measured}
            of_windows = [
                gauge_windows.Owner(owner.subscription_id, one.cycle.period_at(at)) for owner, one in measured
            ]
            window, _ = await gauge_windows.read(
                self.base.connection,
                self.base.organization_id,
                self.facts.customer_id,
                self.rule,
                of_windows,
                self.question.selection,
                GaugeWindow(MAX_GAUGES + 1),
                self.rule.reset_version,
            )
            found = []
            for stored, _ in window:
                owner, one = by_owner[stored.gauge.subscription_id]
                if (watch := one.watched_gauge(stored.gauge.group, at)) is not None:
                    found.append((owner, one, watch))
        return found[:MAX_GAUGES], len(found) > MAX_GAUGES

    def _known_group(self) -> Group | None:
        """The group of the only gauge of each owner; None when usage decides which groups there are."""
        wanted = dict(self.question.selection.group)
        own = {selector.key: selector.value for selector in self.rule.groups}
        group = tuple((key, value or wanted.get(key, "")) for key, value in own.items())
        is_known = all(value is not None or key in wanted for key, value in own.items())
        is_selected = all((key, value) in group for key, value in wanted.items())
        return group if is_known and is_selected else None

    async def _groups(self, measured: CustomerMeasure, at: datetime) -> tuple[int, int] | None:
        """How many groups the alert has met, and the most that it may meet; None where it has no groups."""
        if not self.rule.fans_out:
            return None
        start = measured.cycle.period_at(at).start
        groups = Groups(self.facts.customer_id, self.rule.alert_id, measured.subscription_id, start)
        met = await exclusions.counted(self.raw, self.base.organization_id, groups, self.rule.watching_epoch)
        return met, self.base.max_groups

    async def _explained(
        self,
        router: Router,
        watched: Sequence[tuple[Owner, CustomerMeasure, WatchedGauge]],
        sample: EventSample,
        groups: tuple[int, int] | None,
    ) -> list[ExplainedGauge]:
        organization_id, rule = self.base.organization_id, self.rule
        every = [watch.gauge for _, _, watch in watched]
        rows = await gauges.stored(self.raw, organization_id, every) if every else {}
        states = await read_states(self.raw, organization_id, every, rule.alert_id) if every else {}
        subjects = [self._subject(watch, rows.get(watch.gauge.gauge_id)) for _, _, watch in watched]
        if sample.is_complete:
            await self._count([one for one in subjects if one.before is None])
        epochs = [(rule, one.rules_epoch) for one in subjects]
        silence = await Silence.read(self.raw, organization_id, epochs)
        situation = Situation(rule, self.base.now, self.base.grace, silence, groups)
        explained = []
        for (owner, one, watch), subject in zip(watched, subjects, strict=True):
            row = rows.get(watch.gauge.gauge_id)
            limits = router.limits_of(self.facts, owner.plan_id) if rule.has_percentages else ()
            explained.append(
                explain_usage_gauge(
                    situation,
                    one,
                    subject,
                    states.get((watch.gauge.gauge_id, rule.alert_id)),
                    None if row is None else row[1],
                    limit_source(limits, one, owner.plan_id, watch.gauge.group),
                )
            )
        return await self._with_holds(explained, watched)

    async def _with_holds(
        self, explained: Sequence[ExplainedGauge], watched: Sequence[tuple[Owner, CustomerMeasure, WatchedGauge]]
    ) -> list[ExplainedGauge]:
        """The gauges with what open reservations hold of them."""
        organization_id = self.base.organization_id
        held = await read_held(self.base.connection, organization_id, [watch.gauge for _, _, watch in watched])
        found = []
        for one, (_, _, watch) in zip(explained, watched, strict=True):
            of_gauge = held.get(watch.gauge)
            holds: Sequence[Holding] = ()
            if of_gauge is not None and of_gauge.number:
                counted = recounts.Recount(watch.gauge, watch.aggregation, None, (), watch.raw_events)
                holds = await holding(self.raw, organization_id, counted, MAX_HOLDS)
            found.append(replace(one, held=of_gauge, holding=holds))
        return found

    def _subject(self, watch: WatchedGauge, row: tuple[Locked, datetime] | None) -> Subject:
        """The gauge as a transaction that locks it would find it."""
        locked = _NEW_GAUGE if row is None else row[0]
        return before_fold(Movement(watch), locked, set())

    async def _count(self, subjects: Sequence[Subject]) -> None:
        """Counts gauges anew from the stored events, which are few."""
        if not subjects:
            return
        wanted = []
        for one in subjects:
            watch = one.movement.watch
            wanted.append(
                recounts.Recount(watch.gauge, watch.aggregation, watch.unique_property, (), watch.raw_events)
            )
        counted = await recounts.recount(self.raw, self.base.organization_id, wanted)
        for subject, (tally, count) in zip(subjects, counted, strict=True):
            take_count(subject, tally, count)

    async def _sample(self, measured: CustomerMeasure, at: datetime) -> EventSample:
        """A sample of the customer's events in the period of its first owner."""
        period = measured.cycle.period_at(at)
        subscription_id = self.question.selection.subscription_id or self.rule.scope.subscription_id
        like = Gauge(self.facts.customer_id, subscription_id, self.rule.measure, (), period)
        kind = recounts.Recount(like, measured.aggregation, measured.unique_property, (), measured.raw_events).kind
        return await event_samples.sample(
            self.raw,
            self.base.organization_id,
            self.facts.customer_id,
            kind,
            self.rule.measure,
            period,
            subscription_id=subscription_id,
            group_keys=self.rule.group_keys,
            group_values={
                **{one.key: one.value for one in self.rule.groups if one.value is not None},
                **dict(self.question.selection.group),
            },
        )

    def _check_period(self, measured: CustomerMeasure, at: datetime) -> StepResult:
        period, now = measured.cycle.period_at(at), self.base.now
        zone = measured.cycle.time_zone
        text = f"The period is {shown_time(period.start)} to {shown_time(period.end)}, of a cycle in {zone}"
        until = end_of_grace(period, self.base.grace)
        if until <= now:
            text = f"{text}; its grace ended on {shown_time(until)}, so nothing is counted in it any more."
            return StepResult(Check.PERIOD, Reason.PERIOD_OVER, text)
        if period.end <= now:
            text = f"{text}; it is over, and late events count until {shown_time(until)}"
        return StepResult(Check.PERIOD, Reason.PASSED, f"{text}.")


# What `gauges.lock` returns of a gauge that it has just created.
_NEW_GAUGE = Locked(ZERO, NEVER_EVALUATED, None, None, None)
