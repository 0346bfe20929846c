"""What the database must hold for the events that were sent, by the reference model, and what it does hold."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple

from cli.client.connection import UNARY_TIMEOUT, Address
from generated.tidemark.v1 import (
    alert_pb2,
    metric_pb2,
)
from generated.tidemark.v1.account_service_pb2 import PutMetricRequest
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2 import CreateAlertRequest, ListAlertsRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.transition_pb2 import Transition
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.reference.alerts import Alert
from tests.reference.gauges import UNIQUE_COUNT, Event, Gauge, Metric
from tests.reference.thresholds import BOTH, REACHED, RESOLVED, State, Threshold
from tests.reference.usage import CONFLICT, UsageModel
from tests.support.notifier.receiver import Arrival
from tests.support.processes.programs import DEADLINE, POLLING_INTERVAL, session
from tests.support.processes.traffic import LABELS
from tests.support.usage import words

USERS = Metric("users", UNIQUE_COUNT, "user")


def for_all_customers(
    name: str, measure: tuple[str, str], *values: str, group_key: str = "", step: str = ""
) -> Alert:
    """An alert that covers all customers. values: of its fixed thresholds. step: of its recurring one."""
    thresholds = [Threshold(Fraction(value), notify_on=BOTH) for value in values]
    if step:
        thresholds.append(Threshold(step=Fraction(step)))
    keys = ((group_key, None),) if group_key else ()
    return Alert(name, measure, False, ("all",), keys, tuple(thresholds))


ALERTS = (
    for_all_customers("calls", ("usage", "calls"), "20", "100", "1000", "1000000"),
    for_all_customers("calls by region", ("usage", "calls"), "25.5", group_key="region", step="50"),
    for_all_customers("spend", ("cost", "USD"), "0.000000001", "5", "50"),
    for_all_customers("users", ("usage", "users"), "1", "10", "30", "41"),
)
# Seats are returned, too: how often they reach the threshold depends on the order in which the events of several
# clients arrive. REACHED and RESOLVED must alternate whatever the order is.
SEATS = for_all_customers("seats", ("usage", "seats"), "5")
# On properties that no alert watched before, for tests that create these later than the others.
BY_LABEL = tuple(
    for_all_customers(f"calls by {label}", ("usage", "calls"), "1", "60", "500", group_key=label) for label in LABELS
)


async def create(address: Address, *alerts: Alert, timeout: float = UNARY_TIMEOUT) -> None:
    """Creates the alerts, and the metric that is not a sum. timeout: seconds that each call may take."""
    async with address.channel() as channel:
        metric = metric_pb2.Metric(
            metric_id=USERS.metric_id,
            aggregation=metric_pb2.AGGREGATION_UNIQUE_COUNT,
            unique_property=USERS.unique_property,
        )
        await AccountServiceStub(channel).PutMetric(PutMetricRequest(metric=metric), timeout=timeout)
        for alert in alerts:
            message = words.alert_of(alert)
            message.display_name = alert.name
            await AlertServiceStub(channel).CreateAlert(CreateAlertRequest(alert=message), timeout=timeout)


async def evaluated(address: Address) -> None:
    """Waits until every alert is evaluated on all that existed before it."""
    async with address.channel() as channel, asyncio.timeout(DEADLINE):
        stub = AlertServiceStub(channel)
        while True:
            listed = await stub.ListAlerts(ListAlertsRequest(), timeout=UNARY_TIMEOUT)
            assert listed.alerts
            if all(alert.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE for alert in listed.alerts):
                return
            await asyncio.sleep(POLLING_INTERVAL)


class Reached(NamedTuple):
    """A threshold of an alert was reached on a gauge."""

    alert: str
    gauge: Gauge
    level: Fraction


@dataclass
class Results:
    """What the database holds: the number of events, the gauges, and how often each threshold was reached.

    The number of transitions of SEATS is not determined, so `reached` does not contain them.
    """

    events: int
    gauges: dict[Gauge, Fraction]
    reached: Counter[Reached]


def expected(events: Iterable[UsageEvent], *alerts: Alert) -> Results:
    """What must be stored of these alerts and events; each event counts once, however often it was sent.

    The order of the events does not matter: all gauges but those of SEATS only rise. Nor does it matter that all of
    them are one commit: the model follows each gauge from event to event within a commit, too.
    """
    model = _model(events, alerts)
    reached: Counter[Reached] = Counter()
    for name, gauge, transition, notified in model.recorded:
        if name != SEATS.name:
            assert (transition.kind, notified) == (REACHED, True)
            reached[Reached(name, gauge, transition.level)] += 1
    return Results(len(model.events), model.values(), reached)


def expected_states(events: Iterable[UsageEvent], *alerts: Alert) -> dict[tuple[str, Gauge], State]:
    """What each alert must know of each gauge of which a threshold is reached, without the number of notifications.

    That number depends on the order of the events, and nothing else does.
    """
    return _reached_states(_model(events, alerts).states)


def _model(events: Iterable[UsageEvent], alerts: Iterable[Alert]) -> UsageModel:
    model = UsageModel(datetime.now(UTC), [USERS])
    for alert in alerts:
        model.create(alert)
    verdicts, _ = model.commit([_event(message) for message in events])
    assert CONFLICT not in verdicts
    return model


def _reached_states(found: Mapping[tuple[str, Gauge], State]) -> dict[tuple[str, Gauge], State]:
    states = {key: replace(state, sequence=0) for key, state in found.items()}
    return {key: state for key, state in states.items() if state != State()}


def _event(message: UsageEvent) -> Event:
    return Event(
        event_id=message.event_id,
        customer=message.customer_id,
        time=message.event_time.ToDatetime(UTC),
        metric=message.metric_id,
        quantity=Fraction(message.quantity),
        cost=Fraction(message.cost) if message.cost else None,
        currency=message.currency or None,
        properties=tuple(sorted(message.properties.items())),
    )


async def stored(url: str) -> Results:
    """What is stored; notifications are consistent with each other."""
    async with session(url) as connection:
        [[events]] = await (await connection.execute("SELECT count(*) FROM event")).fetchall()
        cursor = await connection.execute("SELECT customer_id, measure, group_values, period_start, value FROM gauge")
        rows: list[Any] = await cursor.fetchall()
    gauges = {_gauge(*identity): Fraction(value) for *identity, value in rows}
    reached: Counter[Reached] = Counter()
    sequences: dict[tuple[str, Gauge], list[int]] = defaultdict(list)
    seats: dict[Gauge, list[str]] = defaultdict(list)
    for body in (await notifications(url)).values():
        data = json.loads(body)["data"]
        assert "omitted" not in data
        one = words.notification_of(data["alert_display_name"], data)
        sequences[one.alert, one.gauge].append(one.sequence)
        for transition in one.transitions:
            if one.alert == SEATS.name:
                seats[one.gauge].append(transition.kind)
            else:
                assert transition.kind == REACHED
                reached[Reached(one.alert, one.gauge, transition.level)] += 1
    for numbers in sequences.values():
        assert numbers == list(range(1, len(numbers) + 1))
    for gauge, kinds in seats.items():
        assert kinds == [(REACHED, RESOLVED)[number % 2] for number in range(len(kinds))]
        assert (len(kinds) % 2 == 1) == (gauges[gauge] >= (SEATS.thresholds[0].value or 0))
    assert isinstance(events, int)
    return Results(events, gauges, reached)


async def stored_states(url: str) -> dict[tuple[str, Gauge], State]:
    """What each alert knows of each gauge, as `expected_states`."""
    async with session(url) as connection:
        named = await (await connection.execute("SELECT alert_id, name FROM alert")).fetchall()
        names = {alert_id: str(name) for alert_id, name in named}
        cursor = await connection.execute(
            "SELECT s.alert_id, s.reached, g.customer_id, g.measure, g.group_values, g.period_start"
            " FROM alert_state s JOIN gauge g USING (organization_id, customer_id, gauge_id)"
        )
        rows: list[Any] = await cursor.fetchall()
    return _reached_states(
        {(names[alert_id], _gauge(*gauge)): words.state_of(reached, 0) for alert_id, reached, *gauge in rows}
    )


def _gauge(customer: str, measure: str, group: list[list[str]], period_start: datetime) -> Gauge:
    kind, _, name = measure.partition("/")
    return Gauge(customer, None, (kind, name), tuple((key, value) for key, value in group), period_start)


async def notifications(url: str) -> dict[str, str]:
    """The body of every notification by its id, in the order in which each gauge's were written."""
    async with session(url) as connection:
        cursor = await connection.execute(
            "SELECT notification_id, body FROM notification ORDER BY gauge_id, sequence"
        )
        rows = await cursor.fetchall()
    found = {str(notification_id): str(body) for notification_id, body in rows}
    assert len(found) == len(rows)
    return found


def check_arrivals(arrivals: Iterable[Arrival], secret: str, written: Mapping[str, str]) -> None:
    """Each request that a receiver got is signed, and is a notification that was written, byte for byte."""
    for arrival in arrivals:
        arrival.verify(secret)
        assert arrival.body.decode() == written[arrival.webhook_id]


def reached_in(transitions: Iterable[Transition]) -> Counter[Reached]:
    """What acknowledgements contain, without SEATS: the thresholds that were reached."""
    found: Counter[Reached] = Counter()
    for message in transitions:
        if message.alert_display_name != SEATS.name:
            transition = words.transition_of(message)
            assert transition.kind == REACHED
            found[Reached(message.alert_display_name, words.gauge_of(message.gauge), transition.level)] += 1
    return found
