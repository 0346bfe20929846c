"""One organization in the words of the plain model: changes through the API, commits without it.

The API answers batch by batch; only the committer itself is told which batches share a commit.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import grpc

from evaluator.amounts import format_decimal
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge, Measure
from evaluator.prices import FilterOperator
from generated.tidemark.v1 import account_pb2, alert_pb2, condition_pb2, threshold_pb2
from server.ingest.batches import Batch, Outcome
from server.ingest.commit import Committer
from server.ingest.rules import Rules
from store.database import Database
from store.keys import Organization
from tests import plain_ladder, plain_model
from tests.integration.usage.caller import EVERYBODY, Caller, on_customer, on_plan, on_subscription

GRACE = timedelta(days=34)


class World:
    """What a caller does to its organization, and what comes of it."""

    def __init__(self, caller: Caller, database: Database, organization_id: int) -> None:
        self.caller = caller
        organization = Organization(organization_id, caller.organization)
        self._committer = Committer(database, caller.clock, GRACE, organization, Rules(organization_id))
        self.alert_ids: dict[str, str] = {}

    async def put_metric(self, metric_id: str, aggregation: str, unique_property: str) -> None:
        """Registers a metric."""
        kind = account_pb2.Aggregation.Value(f"AGGREGATION_{aggregation}")
        await self.caller.put_metric(metric_id, kind, unique_property if aggregation == "UNIQUE_COUNT" else "")

    async def put(self, customer: str, subscription: str | None, plan: str) -> None:
        """A customer, or a subscription, comes to a plan."""
        if subscription is None:
            await self.caller.put_customer(account_pb2.Customer(customer_id=customer, plan_id=plan))
        else:
            await self.caller.put_subscription(
                account_pb2.Subscription(customer_id=customer, subscription_id=subscription, plan_id=plan)
            )

    async def create(self, alert: plain_model.Alert) -> bool:
        """Creates an alert and lets it visit what there is; False when another one stands in its way."""
        try:
            created = await self.caller.create(alert_of(alert), evaluate=alert.evaluate)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ALREADY_EXISTS:
                raise
            return False
        self.alert_ids[alert.name] = created.alert_id
        return True

    async def archive(self, name: str) -> None:
        """Ends an alert."""
        await self.caller.archive(self.alert_ids[name])

    async def commit(self, batches: Sequence[Sequence[plain_model.Event]]) -> list[Outcome]:
        """Commits batches together."""
        return await self._committer.commit([Batch([event_of(event) for event in batch], True) for batch in batches])

    async def notifications(self) -> list[plain_model.Notification]:
        """What is stored to be sent."""
        names = {alert_id: name for name, alert_id in self.alert_ids.items()}
        return [_notification(names[one.alert_id], one.body["data"]) for one in await self.caller.notifications()]

    async def states(self) -> dict[tuple[str, plain_model.Gauge], plain_ladder.State]:
        """What the alerts know of their gauges."""
        names = {alert_id: name for name, alert_id in self.alert_ids.items()}
        rows = await self.caller.rows(
            "SELECT s.alert_id, s.reached, s.sequence, g.customer_id, g.subscription_id, g.measure, g.group_values,"
            " g.period_start FROM alert_state s JOIN gauge g USING (organization_id, customer_id, gauge_id)"
            " WHERE s.organization_id = %(organization_id)s"
        )
        found = {}
        for alert_id, reached, sequence, customer, subscription, measure, group, start in rows:
            measured = Measure.from_key(measure, subscription is not None)
            gauge = plain_model.Gauge(
                customer,
                subscription,
                _measured(measured),
                tuple((key, value) for key, value in group),
                plain_model.month_of(start.astimezone(UTC)),
                _prices(measured),
            )
            found[names[alert_id], gauge] = _state(reached, sequence)
        return found


def event_of(event: plain_model.Event) -> UsageEvent:
    """The event in the service's own words."""
    return UsageEvent(
        event.event_id,
        event.customer,
        event.time,
        event.metric,
        decimal_of(event.quantity),
        event.subscription,
        None if event.cost is None else decimal_of(event.cost),
        event.currency,
        dict(event.properties),
    )


def values_of(gauges: Iterable[tuple[Gauge, Decimal]]) -> dict[plain_model.Gauge, Fraction]:
    """The gauges of an outcome in the model's words."""
    return {
        plain_model.Gauge(
            gauge.customer_id,
            gauge.subscription_id,
            _measured(gauge.measure),
            gauge.group,
            plain_model.month_of(gauge.period.start),
            _prices(gauge.measure),
        ): Fraction(value)
        for gauge, value in gauges
    }


def _measured(measure: Measure) -> tuple[str, str]:
    return ("cost", measure.currency) if measure.currency else ("usage", measure.metric_id or "")


def _prices(measure: Measure) -> plain_model.Prices:
    return frozenset(
        (item.field.property_name, item.operator is FilterOperator.INCLUDES, frozenset(item.values))
        for item in measure.prices
    )


def decimal_of(number: Fraction) -> Decimal:
    """The exact decimal of a fraction that is one."""
    with localcontext(prec=100):
        return Decimal(number.numerator) / Decimal(number.denominator)


def alert_of(alert: plain_model.Alert) -> alert_pb2.Alert:
    """The alert in the words of the API."""
    kind, name = alert.measure
    shown = alert_pb2.Alert(name="alert", scope=_scope(alert.scope), thresholds=map(_threshold, alert.lines))
    if alert.per_subscription and kind == "usage":
        shown.usage_exceeded.metric_id = name
    elif alert.prices:
        shown.spend_exceeded.currency = name
        for field, taken_in, values in sorted(alert.prices):
            shown.spend_exceeded.price_filters.add(
                field=condition_pb2.PriceField.Value(f"PRICE_FIELD_{field.upper()}"),
                operator=(
                    condition_pb2.FILTER_OPERATOR_INCLUDES if taken_in else condition_pb2.FILTER_OPERATOR_EXCLUDES
                ),
                values=sorted(values, reverse=True),
            )
    elif alert.per_subscription:
        shown.cost_exceeded.currency = name
        shown.cost_exceeded.grouping_keys.extend(key for key, _ in alert.keys)
        for bound, lines in alert.overrides:
            shown.cost_exceeded.threshold_overrides.add(
                group_keys=[key for key, _ in bound],
                group_values=[value for _, value in bound],
                thresholds=map(_threshold, lines),
            )
    else:
        selectors = [condition_pb2.GroupSelector(key=key, value=value) for key, value in alert.keys]
        if kind == "usage":
            shown.usage_threshold_reached.metric_id = name
            shown.usage_threshold_reached.group_values.extend(selectors)
        else:
            shown.spend_threshold_reached.currency = name
            shown.spend_threshold_reached.group_values.extend(selectors)
    return shown


def _scope(scope: tuple[str, ...]) -> alert_pb2.AlertScope:
    match scope:
        case ("plan", plan):
            return on_plan(plan)
        case ("customer", customer):
            return on_customer(customer)
        case ("subscription", customer, subscription):
            return on_subscription(subscription, customer)
    return EVERYBODY


def _threshold(line: plain_ladder.Line) -> threshold_pb2.Threshold:
    return threshold_pb2.Threshold(
        value=_text(line.value),
        recurring_step=_text(line.step),
        resolve_value=_text(line.resolve),
        notify_on=[threshold_pb2.TransitionKind.Value(f"TRANSITION_KIND_{kind}") for kind in sorted(line.told)],
    )


def _text(number: Fraction | None) -> str:
    return "" if number is None else format_decimal(decimal_of(number))


def _state(reached: dict[str, Any], sequence: int) -> plain_ladder.State:
    state = plain_ladder.State(sequence=sequence)
    for key, entry in reached.items():
        if key.startswith("every:"):
            state.steps, state.silent_steps = entry["rungs"], entry["silent_rungs"]
        else:
            state.past[Fraction(key)] = entry.get("silent", False)
    return state


def _notification(alert: str, data: dict[str, Any]) -> plain_model.Notification:
    gauge = data["gauge"]
    return plain_model.Notification(
        alert,
        plain_model.Gauge(
            gauge["customer_id"],
            gauge.get("subscription_id"),
            ("cost", gauge["currency"]) if "currency" in gauge else ("usage", gauge["metric_id"]),
            tuple((pair["key"], pair["value"]) for pair in gauge["group"]),
            plain_model.month_of(datetime.fromisoformat(gauge["period"]["start_time"])),
            frozenset(
                (one["field"].lower(), one["operator"] == "INCLUDES", frozenset(one["values"]))
                for one in gauge.get("price_filters", ())
            ),
        ),
        data["sequence"],
        data["late"],
        tuple(
            plain_ladder.Crossing(
                one["kind"],
                Fraction(one["level"]),
                Fraction(one["previous_value"]),
                Fraction(one["value"]),
                one.get("event_id"),
            )
            for one in data["transitions"]
        ),
    )
