"""One customer at one time: the alerts that cover it, with their states."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alerts import AlertRule
from evaluator.definitions import AlertDefinition, DefinitionState
from evaluator.exclusions import ExclusionReason
from evaluator.gauges import Gauge, Measure
from runtime.turns import Slices
from store.accounts import customers, subscriptions
from store.accounts.customers import StoredCustomer
from store.accounts.subscriptions import StoredSubscription, SubscriptionFilter
from store.alerts import alerts, exclusions
from store.alerts.lists import Position
from store.erasures.jobs import CustomerUnknown
from store.limits import effective_limits
from store.postgres.bounded_pages import MAX_EXAMINED
from store.postgres.database import driver
from store.postgres.snapshots import begin_snapshot
from store.views import covering_alerts, customer_gauges, fact_views, gauge_windows
from store.views.covered_owners import Owners
from store.views.covering_alerts import AlertsOfCustomer
from store.views.customer_alerts import ALL_GAUGES, CustomerAlert, GaugeSelection, GaugeState
from store.views.customer_gauges import NO_STATE, ShownState, StoredGauge
from store.views.fact_views import FactView
from store.views.gauge_windows import GaugeWindow
from store.views.held_of_gauges import with_held

MAX_SUBSCRIPTIONS = 100_000  # of one customer
GAUGES_AT_ONCE = 10_000  # of all alerts of a page, unless a single alert has more

_Values = dict[Gauge, tuple[Decimal | None, ShownState]]


class CustomerView:
    """One customer at one time.

    Made by `open`. All its reads see the database as it was at that time.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        organization_id: int,
        customer: StoredCustomer,
        subscriptions: Sequence[StoredSubscription],
        now: datetime,
    ) -> None:
        self._connection = connection
        self._organization_id = organization_id
        self._customer = customer
        self._subscriptions = subscriptions
        self._now = now
        self._owners = Owners(customer, subscriptions, now)

    @classmethod
    async def open(
        cls,
        connection: AsyncConnection,
        organization_id: int,
        customer_id: str,
        now: datetime,
        *,
        locked: bool = False,
    ) -> "CustomerView":
        """The customer at the start of the transaction, which must not have read anything before.

        locked: the transaction may have read and written before, and has locked the gauges that are read. Raises
        CustomerUnknown.
        """
        # With one snapshot for each statement, a value could be above a level whose threshold is not reached yet.
        if not locked:
            await begin_snapshot(connection)
        customer = await customers.get(connection, organization_id, customer_id)
        if customer is None:
            raise CustomerUnknown(customer_id)
        first_subscriptions = await subscriptions.list_page(
            connection, organization_id, SubscriptionFilter(customer_id), after=None, limit=MAX_SUBSCRIPTIONS
        )
        return cls(connection, organization_id, customer, first_subscriptions, now)

    async def get(
        self, alert_id: str, selection: GaugeSelection = ALL_GAUGES, window: GaugeWindow | None = None
    ) -> CustomerAlert | None:
        """One alert; None if it does not exist, or does not cover the customer or the selected subscription.

        Of the gauges, and for the status, only the selected ones count. window: of them only these are read, except
        of balances and days, whose values are computed. Raises GaugeGone.
        """
        definition = await alerts.get(self._connection, self._organization_id, alert_id)
        if definition is None or not self._owners.covers(definition):
            return None
        rule = definition.to_rule()
        if selection.subscription_id is not None and rule.measure.per_subscription:
            covered = {owner.subscription_id for owner in self._owners.covered_by(rule)}
            if selection.subscription_id not in covered:
                return None
        active = definition.active_rule()
        if window is not None and active is not None and not is_computed(active.measure):
            found = [await self._read_window(definition, active, selection, window)]
        else:
            found = await self._read([definition], selection)
        return (await with_held(self._connection, self._organization_id, found))[0]

    async def list_page(
        self,
        states: Collection[DefinitionState],
        *,
        after: Position | None,
        limit: int,
        max_gauges: int = GAUGES_AT_ONCE,
        most_examined: int = MAX_EXAMINED,
    ) -> AlertsOfCustomer:
        """Up to `limit` alerts that cover the customer with their states, oldest first.

        States are read for at least one alert, and for as many as have `max_gauges` gauges together. An alert may
        have thousands of gauges, and a page with a hundred such alerts would block the event loop for too long.
        most_examined: alerts that are read at most, of those that may cover the customer.
        states: of the alerts; empty: all. after: the create_time and id of the last alert seen.
        """
        found = await covering_alerts.read(
            self._connection,
            self._organization_id,
            self._customer,
            {item.plan_id for item in self._subscriptions if item.plan_id is not None},
            states,
            after=after,
            limit=limit,
            most_examined=most_examined,
        )
        definitions = found.items
        affordable = await self._affordable(definitions, max_gauges)
        read = await with_held(self._connection, self._organization_id, await self._read(definitions[:affordable]))
        if affordable < len(definitions) or len(definitions) == limit:
            last = definitions[affordable - 1]
            return AlertsOfCustomer(read, (last.create_time, last.alert_id), affordable < len(definitions))
        return AlertsOfCustomer(read, found.end, found.end is not None)

    async def _affordable(self, definitions: Sequence[AlertDefinition], max_gauges: int) -> int:
        """How many of the alerts, from the first, have at most `max_gauges` gauges together; at least one."""
        rules = await self._rules(definitions)
        measures = {rule.measure for rule in rules if rule is not None}
        counted = await customer_gauges.count(
            self._connection, self._organization_id, self._customer.customer_id, measures, self._now
        )
        total = 0
        for number, rule in enumerate(rules):
            total += counted.get(rule.measure.key, 0) if rule is not None else 0
            if total > max_gauges and number:
                return number
        return len(definitions)

    async def _rules(self, definitions: Sequence[AlertDefinition]) -> list[AlertRule | None]:
        """The rules of those of the alerts that are active, made in slices."""
        rules, slices = list[AlertRule | None](), Slices(self._organization_id)
        for definition in definitions:
            await slices.pause()
            rules.append(definition.active_rule())
        return rules

    async def _read(
        self, definitions: Sequence[AlertDefinition], selection: GaugeSelection = ALL_GAUGES
    ) -> list[CustomerAlert]:
        """The alerts with their selected gauges, in the same order."""
        reasons = await exclusions.reasons(*self._key)
        rules = [rule for rule in await self._rules(definitions) if rule is not None]
        slices = Slices(self._organization_id)
        disabled = dict[str, ExclusionReason | None]()
        for rule in rules:
            await slices.pause()
            disabled[rule.alert_id] = self._owners.disabled(rule, reasons, selection)
        evaluated = [rule for rule in rules if disabled[rule.alert_id] is None]
        watched = await self._watched(evaluated, reasons, selection)
        reset_versions = {definition.alert_id: definition.reset_version for definition in definitions}
        states = await customer_gauges.states(*self._key, watched, reset_versions)
        # The values of balances and days change with time alone, so they are computed and not read from gauges.
        facts = await fact_views.read(
            *self._key,
            self._customer.plan_end_time,
            [rule for rule in rules if is_computed(rule.measure)],
            self._now,
        )
        limits = await self._limits(rules)
        await slices.begin()
        answers = []
        for definition in definitions:
            await slices.pause()
            alert_id = definition.alert_id
            stored: _Values = {}
            for item in watched.get(alert_id, ()):
                stored[item.gauge] = item.value, states.get((item.gauge_id, alert_id), NO_STATE)
                await slices.pause()
            no_data = definition.state is DefinitionState.ACTIVE and not stored
            if (view := facts.get(alert_id)) is not None:
                stored, no_data = _with_fact_values(stored, view, selection), view.no_data
            gauges = await self._gauge_states(stored, limits.get(alert_id), slices)
            reason = disabled.get(alert_id)
            no_data = no_data and reason is None
            answers.append(CustomerAlert(definition, self._customer.customer_id, gauges, no_data, reason))
        return answers

    async def _read_window(
        self, definition: AlertDefinition, rule: AlertRule, selection: GaugeSelection, window: GaugeWindow
    ) -> CustomerAlert:
        """The alert with a window of its selected gauges, which are stored."""
        customer_id = self._customer.customer_id
        reasons = await exclusions.reasons(*self._key)
        disabled = self._owners.disabled(rule, reasons, selection)
        if disabled is not None:
            return CustomerAlert(definition, customer_id, (), no_data=False, disabled=disabled)
        owners = [
            owner
            for owner in self._owners.covered_by(rule)
            if selection.subscription_id in (None, owner.subscription_id)
            and (rule.alert_id, owner.subscription_id) not in reasons
        ]
        found, totals = await gauge_windows.read(
            *self._key, rule, owners, selection, window, definition.reset_version
        )
        limit_of = (await self._limits([rule])).get(rule.alert_id)
        shown = tuple(
            GaugeState(one.gauge, one.value, *state, limit=None if limit_of is None else limit_of(one.gauge))
            for one, state in found
        )
        return CustomerAlert(definition, customer_id, shown, no_data=not totals.number, totals=totals)

    @property
    def _key(self) -> tuple[AsyncConnection, int, str]:
        """The arguments of statements about the customer."""
        return self._connection, self._organization_id, self._customer.customer_id

    async def _watched(
        self,
        rules: Sequence[AlertRule],
        reasons: Mapping[tuple[str, str | None], ExclusionReason],
        selection: GaugeSelection,
    ) -> dict[str, list[StoredGauge]]:
        """The selected stored gauges in current periods that each of the rules watches, by alert id."""
        measures = {rule.measure for rule in rules}
        found = await customer_gauges.current(*self._key, measures, self._now, selection.group)
        slices = Slices(self._organization_id)
        watched: dict[str, list[StoredGauge]] = {}
        for rule in rules:
            of_rule = watched[rule.alert_id] = list[StoredGauge]()
            for owner in self._owners.covered_by(rule):
                await slices.pause()
                if (rule.alert_id, owner.subscription_id) in reasons:
                    continue
                for stored in found.get((rule.measure, owner.subscription_id, owner.period), ()):
                    await slices.pause()
                    if rule.selects(stored.gauge.group) and selection.includes(stored.gauge):
                        of_rule.append(stored)
        return watched

    async def _gauge_states(
        self, values: _Values, limit_of: Callable[[Gauge], Decimal | None] | None, slices: Slices
    ) -> tuple[GaugeState, ...]:
        gauges = []
        for gauge, (value, state) in values.items():
            limit = None if limit_of is None else limit_of(gauge)
            gauges.append(GaugeState(gauge, value, *state, limit=limit))
            await slices.pause()
        return tuple(gauges)

    async def _limits(self, rules: Sequence[AlertRule]) -> dict[str, Callable[[Gauge], Decimal | None]]:
        """For each alert with percentage thresholds, by its id, a function that finds the limit of a gauge."""
        if not any(rule.has_percentages for rule in rules):
            return {}
        plan_ids: dict[str | None, str | None] = {item.subscription_id: item.plan_id for item in self._subscriptions}
        plan_ids[None] = self._customer.plan_id
        raw = await driver(self._connection)
        find = await effective_limits.finder(raw, self._organization_id, self._customer.customer_id, plan_ids)
        return {rule.alert_id: find for rule in rules if rule.has_percentages}


def is_computed(measure: Measure) -> bool:
    """Whether the values of its gauges change with time alone, so that they are not read from gauges."""
    return measure.of_facts and measure.invoices is None


def _with_fact_values(stored: _Values, view: FactView, selection: GaugeSelection) -> _Values:
    """The selected gauges with their computed values; of those without anything active only the ones in alarm."""
    shown: _Values = {
        gauge: (value, stored[gauge][1] if gauge in stored else NO_STATE)
        for gauge, value in view.values.items()
        if selection.includes(gauge)
    }
    for gauge, (_, state) in stored.items():
        if gauge not in shown and state.state.in_alarm:
            shown[gauge] = view.others.get(gauge, view.of_nothing), state
    return shown
