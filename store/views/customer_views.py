"""One customer at one moment: which alerts cover it, and what each of them says."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, or_, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alerts import AlertRule, ConditionType, ScopeKind
from evaluator.definitions import AlertDefinition, DefinitionState
from evaluator.exclusions import ExclusionReason
from evaluator.gauges import EVER, Gauge
from evaluator.invoices import current_period
from evaluator.periods import Period
from runtime.turns import Slices
from store.accounts import customers, subscriptions
from store.accounts.customers import Customer
from store.accounts.subscriptions import Subscription
from store.alerts import alerts, exclusions
from store.alerts.rows import definition_of
from store.limits import effective as limit_facts
from store.postgres.database import driver
from store.tables.alerts import alert
from store.views import customer_gauges, fact_views
from store.views.customer_alerts import CustomerAlert, GaugeState
from store.views.customer_gauges import UNTOUCHED, Measured, Remembered
from store.views.fact_views import FactView

MAX_SUBSCRIPTIONS = 100_000  # of one customer
GAUGES_AT_ONCE = 10_000  # of all alerts of a page, unless a single alert has more

_PER_SUBSCRIPTION = tuple(kind for kind in ConditionType if kind.per_subscription)


class CustomerUnknown(Exception):
    """The organization has no such customer: nobody registered it, and no usage named it."""


class _Place(NamedTuple):
    """Where a gauge of an alert can be: with the customer itself or a subscription, in the current period."""

    subscription_id: str | None
    period: Period


class CustomerView:
    """One customer at one moment, for as many of its alerts as are asked for.

    Made by `open`; everything it reads it reads as of that moment.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        organization_id: int,
        customer: Customer,
        subscriptions: Sequence[Subscription],
        now: datetime,
    ) -> None:
        self._connection = connection
        self._organization_id = organization_id
        self._customer = customer
        self._subscriptions = subscriptions
        self._now = now

    @classmethod
    async def open(
        cls, connection: AsyncConnection, organization_id: int, customer_id: str, now: datetime
    ) -> "CustomerView":
        """The customer as of the start of the transaction, in which nothing may have been read before.

        Raises CustomerUnknown.
        """
        # Values, states and the definition would otherwise come from different moments: a value past the line
        # beside a state that does not know it yet.
        await connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        customer = await customers.get(connection, organization_id, customer_id)
        if customer is None:
            raise CustomerUnknown(customer_id)
        first_subscriptions = await subscriptions.list_page(
            connection,
            organization_id,
            customer_id=customer_id,
            plan_id=None,
            after=None,
            limit=MAX_SUBSCRIPTIONS,
        )
        return cls(connection, organization_id, customer, first_subscriptions, now)

    async def get(self, alert_id: str) -> CustomerAlert | None:
        """What one alert says; None when there is no such alert, or it does not cover the customer."""
        definition = await alerts.get(self._connection, self._organization_id, alert_id)
        if definition is None or not self._covers(definition):
            return None
        return (await self._read([definition]))[0]

    async def list_page(
        self, states: Collection[DefinitionState], *, after: tuple[datetime, str] | None, limit: int
    ) -> tuple[list[AlertDefinition], list[CustomerAlert]]:
        """Up to `limit` alerts that cover the customer, oldest first, and what the first of them say.

        What they say is read of one alert at the least, and of as many as have GAUGES_AT_ONCE gauges between them: an
        alert may have thousands, and an answer that reads a hundred such alerts would keep everybody waiting.
        states: of the alerts, all when empty. after: the create_time and id of the last one seen.
        """
        statement = (
            select(alert)
            .where(alert.c.organization_id == self._organization_id, self._covering())
            .order_by(alert.c.create_time, alert.c.alert_id)
            .limit(limit)
        )
        if states:
            statement = statement.where(alert.c.state.in_(states))
        if after is not None:
            statement = statement.where(tuple_(alert.c.create_time, alert.c.alert_id) > tuple_(*after))
        rows = (await self._connection.execute(statement)).mappings()
        definitions = [definition_of(row) for row in rows]
        return definitions, await self._read(definitions[: await self._affordable(definitions)])

    async def _affordable(self, definitions: Sequence[AlertDefinition]) -> int:
        """How many of the alerts, from the first, have no more gauges than are read at once."""
        rules = [definition.rule() for definition in definitions]
        measures = {rule.measure for rule in rules if rule is not None}
        counted = await customer_gauges.count(
            self._connection, self._organization_id, self._customer.customer_id, measures, self._now
        )
        total = 0
        for number, rule in enumerate(rules):
            total += counted.get(rule.measure.key, 0) if rule is not None else 0
            if total > GAUGES_AT_ONCE and number:
                return number
        return len(definitions)

    def _covers(self, definition: AlertDefinition) -> bool:
        # A subscription's alert may be there before its subscription is.
        named = definition.scope.kind is ScopeKind.SUBSCRIPTION and (
            definition.scope.customer_id == self._customer.customer_id
        )
        return named or bool(self._places(definition.watch()))

    def _covering(self) -> ColumnElement[bool]:
        """`_covers` for the database."""
        per_subscription = alert.c.condition_type.in_(_PER_SUBSCRIPTION)
        plans = {item.plan_id for item in self._subscriptions if item.plan_id is not None}
        return or_(
            alert.c.scope == ScopeKind.ALL_CUSTOMERS,
            alert.c.customer_id == self._customer.customer_id,
            and_(
                alert.c.scope == ScopeKind.PLAN,
                or_(
                    and_(per_subscription, alert.c.plan_id.in_(plans)),
                    and_(~per_subscription, alert.c.plan_id == self._customer.plan_id),
                ),
            ),
        )

    def _places(self, rule: AlertRule) -> list[_Place]:
        customer = self._customer
        if not rule.measure.per_subscription:
            if not rule.scope.covers(customer.customer_id, None, customer.plan_id):
                return []
            if rule.measure.invoices is not None:
                return [_Place(None, current_period(rule.measure.invoices, customer.cycle.time_zone, self._now))]
            if rule.measure.of_facts:
                return [_Place(None, EVER)]
            return [_Place(None, customer.cycle.period_at(self._now))]
        return [
            _Place(item.subscription_id, (item.cycle or customer.cycle).period_at(self._now))
            for item in self._subscriptions
            if rule.scope.covers(customer.customer_id, item.subscription_id, item.plan_id)
        ]

    async def _read(self, definitions: Sequence[AlertDefinition]) -> list[CustomerAlert]:
        """The alerts with their gauges, in the same order."""
        rules = [rule for definition in definitions if (rule := definition.rule()) is not None]
        who = self._connection, self._organization_id, self._customer.customer_id
        found = await customer_gauges.current(*who, {rule.measure for rule in rules}, self._now)
        reasons = await exclusions.reasons(*who)
        disabled = {rule.alert_id: self._disabled(rule, reasons) for rule in rules}
        slices = Slices(self._organization_id)
        watched: dict[str, list[Measured]] = {}
        for rule in rules:
            await slices.pause()
            watched[rule.alert_id] = [
                measured
                for place in self._places(rule)
                if disabled[rule.alert_id] is None and (rule.alert_id, place.subscription_id) not in reasons
                for measured in found.get((rule.measure, *place), ())
                if rule.selects(measured.gauge.group)
            ]
        # What balances read changes with time alone, so it is read and not remembered.
        read = await fact_views.read(
            *who,
            self._customer.plan_end_time,
            [rule for rule in rules if rule.measure.of_facts and rule.measure.invoices is None],
            self._now,
        )
        reset_versions = {definition.alert_id: definition.reset_version for definition in definitions}
        states = await customer_gauges.remembered(*who, watched, reset_versions)
        limits = await self._limits(rules)
        answers = []
        for definition in definitions:
            await slices.pause()
            stored: dict[Gauge, tuple[Decimal | None, Remembered]] = {}
            for item in watched.get(definition.alert_id, ()):
                stored[item.gauge] = item.value, states.get((item.gauge_id, definition.alert_id), UNTOUCHED)
                await slices.pause()
            view = read.get(definition.alert_id)
            limit_for = limits.get(definition.alert_id)
            no_data = definition.state is DefinitionState.ACTIVE and not stored
            if view is not None:
                stored, no_data = _with_readings(stored, view), view.no_data
            gauges = []
            for gauge, (value, state) in stored.items():
                gauges.append(GaugeState(gauge, value, *state, limit=None if limit_for is None else limit_for(gauge)))
                await slices.pause()
            answers.append(
                CustomerAlert(
                    definition,
                    self._customer.customer_id,
                    tuple(gauges),
                    no_data and disabled.get(definition.alert_id) is None,
                    disabled.get(definition.alert_id),
                )
            )
        return answers

    def _disabled(
        self, rule: AlertRule, reasons: Mapping[tuple[str, str | None], ExclusionReason]
    ) -> ExclusionReason | None:
        """Why an active alert is not evaluated for the customer, or for any subscription that it covers."""
        whole = reasons.get((rule.alert_id, None))
        if whole is not None:
            return whole
        each = [reasons.get((rule.alert_id, place.subscription_id)) for place in self._places(rule)]
        return each[0] if each and None not in each else None

    async def _limits(self, rules: Sequence[AlertRule]) -> dict[str, Callable[[Gauge], Decimal | None]]:
        """Of each alert that draws lines in percent of limits, by its id, what finds the limit of a gauge."""
        if not any(rule.of_limits for rule in rules):
            return {}
        plan_ids: dict[str | None, str | None] = {item.subscription_id: item.plan_id for item in self._subscriptions}
        plan_ids[None] = self._customer.plan_id
        raw = await driver(self._connection)
        find = await limit_facts.finder(raw, self._organization_id, self._customer.customer_id, plan_ids)
        return {rule.alert_id: find for rule in rules if rule.of_limits}


def _with_readings(
    stored: Mapping[Gauge, tuple[Decimal | None, Remembered]], view: FactView
) -> dict[Gauge, tuple[Decimal | None, Remembered]]:
    """The gauges with what they read now; of those that have nothing active only the ones in alarm."""
    shown: dict[Gauge, tuple[Decimal | None, Remembered]] = {
        each: (value, stored[each][1] if each in stored else UNTOUCHED) for each, value in view.values.items()
    }
    for each, (_, state) in stored.items():
        if each not in shown and state.state.in_alarm:
            shown[each] = view.others.get(each), state
    return shown
