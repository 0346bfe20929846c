"""The books: what the database must hold for what was sent, reckoned from the events alone, and what it does hold."""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from cli.client.connection import UNARY_TIMEOUT, Address
from evaluator.amounts import format_decimal
from generated.tidemark.v1 import account_pb2, alert_pb2, condition_pb2
from generated.tidemark.v1.account_service_pb2 import PutMetricRequest
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2 import CreateAlertRequest, ListAlertsRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.notification_pb2 import Transition
from generated.tidemark.v1.threshold_pb2 import Threshold, TransitionKind
from generated.tidemark.v1.usage_pb2 import UsageEvent
from tests.support.notifier.receiver import Arrival
from tests.support.processes.programs import DEADLINE, POLLING_INTERVAL, session
from tests.support.processes.traffic import LABELS

REACHED, RESOLVED = "REACHED", "RESOLVED"


class GaugeKey(NamedTuple):
    """Which gauge; every customer has calendar months in UTC."""

    customer_id: str
    measure: str  # "usage/<metric>" or "cost/<currency>"
    group: str  # "<key>=<value>", or nothing
    month: str  # "2026-03"


class Crossing(NamedTuple):
    """That a gauge came to a line of an alert."""

    alert: str  # its name
    gauge: GaugeKey
    level: str


@dataclass(frozen=True)
class Watch:
    """An alert of every customer. lines: its fixed thresholds. step: of its recurring one."""

    name: str
    measure: str
    lines: tuple[str, ...]
    group_key: str = ""
    step: str = ""

    def watches(self, gauge: GaugeKey) -> bool:
        """Whether it says something of that gauge."""
        return gauge.measure == self.measure and gauge.group.partition("=")[0] == self.group_key

    def levels(self, value: Decimal) -> list[str]:
        """The lines that a gauge which only ever rose has come to, in their order."""
        levels = [Decimal(line) for line in self.lines if value >= Decimal(line)]
        if self.step:
            foot = max(map(Decimal, self.lines), default=Decimal(0))
            steps = max(0, int((value - foot) // Decimal(self.step)))
            levels += [foot + Decimal(self.step) * number for number in range(1, steps + 1)]
        return [format_decimal(level) for level in levels]


WATCHES = (
    Watch("calls", "usage/calls", ("20", "100", "1000", "1000000")),
    Watch("calls by region", "usage/calls", ("25.5",), group_key="region", step="50"),
    Watch("spend", "cost/USD", ("0.000000001", "5", "50")),
    Watch("users", "usage/users", ("1", "10", "30", "41")),
)
# Falls as well as it rises: how often it crosses its line depends on the order in which events of several clients
# come in. That its notifications alternate does not.
SEATS = Watch("seats", "usage/seats", ("5",))
# On properties that nothing watched before, for tests that create them later than the others.
BY_LABEL = tuple(Watch(f"calls by {label}", "usage/calls", ("1", "60", "500"), group_key=label) for label in LABELS)


async def put(address: Address, *watches: Watch, timeout: float = UNARY_TIMEOUT) -> None:
    """Creates the alerts, and the metric that is not a sum. timeout: seconds that each call may take."""
    async with address.channel() as channel:
        users = account_pb2.Metric(
            metric_id="users", aggregation=account_pb2.AGGREGATION_UNIQUE_COUNT, unique_property="user"
        )
        await AccountServiceStub(channel).PutMetric(PutMetricRequest(metric=users), timeout=timeout)
        stub = AlertServiceStub(channel)
        for watch in watches:
            await stub.CreateAlert(CreateAlertRequest(alert=_alert(watch)), timeout=timeout)


async def evaluated(address: Address) -> None:
    """Waits until every alert has looked at everything that existed before it."""
    async with address.channel() as channel, asyncio.timeout(DEADLINE):
        stub = AlertServiceStub(channel)
        while True:
            listed = await stub.ListAlerts(ListAlertsRequest(), timeout=UNARY_TIMEOUT)
            assert listed.alerts
            if all(alert.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE for alert in listed.alerts):
                return
            await asyncio.sleep(POLLING_INTERVAL)


def _alert(watch: Watch) -> alert_pb2.Alert:
    alert = alert_pb2.Alert(name=watch.name, scope=alert_pb2.AlertScope(all_customers=alert_pb2.AllCustomersScope()))
    groups = [condition_pb2.GroupSelector(key=watch.group_key)] if watch.group_key else []
    kind, _, name = watch.measure.partition("/")
    if kind == "cost":
        alert.spend_threshold_reached.currency = name
        alert.spend_threshold_reached.group_values.extend(groups)
    else:
        alert.usage_threshold_reached.metric_id = name
        alert.usage_threshold_reached.group_values.extend(groups)
    both = (TransitionKind.TRANSITION_KIND_REACHED, TransitionKind.TRANSITION_KIND_RESOLVED)
    alert.thresholds.extend(Threshold(value=line, notify_on=both) for line in watch.lines)
    if watch.step:
        alert.thresholds.append(Threshold(recurring_step=watch.step))
    return alert


@dataclass
class Books:
    """What the database holds: the number of events, the gauges, and how often each crossing was recorded.

    The crossings of SEATS are not among them, since their number is anybody's guess.
    """

    events: int
    gauges: dict[GaugeKey, Decimal]
    crossings: Counter[Crossing]


def reckoned(events: Iterable[UsageEvent], *watches: Watch) -> Books:
    """What must be there, each event counted once."""
    once = {(event.customer_id, event.event_id): event for event in events}
    gauges: dict[GaugeKey, Decimal] = defaultdict(Decimal)
    users: dict[GaugeKey, set[str]] = defaultdict(set)
    for event in once.values():
        month = event.event_time.ToDatetime().strftime("%Y-%m")
        groups = ["", *(f"{key}={value}" for key, value in event.properties.items())]
        amounts = {f"usage/{event.metric_id}": event.quantity}
        if event.cost:
            amounts[f"cost/{event.currency}"] = event.cost
        for measure, amount in amounts.items():
            for group in groups:
                gauge = GaugeKey(event.customer_id, measure, group, month)
                if not any(watch.watches(gauge) for watch in watches):
                    continue
                if event.metric_id == "users":
                    users[gauge].add(event.properties["user"])
                    gauges[gauge] = Decimal(len(users[gauge]))
                else:
                    gauges[gauge] += Decimal(amount)
    crossings = Counter(
        Crossing(watch.name, gauge, level)
        for gauge, value in gauges.items()
        for watch in watches
        if watch is not SEATS and watch.watches(gauge)
        for level in watch.levels(value)
    )
    return Books(len(once), dict(gauges), crossings)


async def stored(url: str) -> Books:
    """What is there; notifications are consistent with each other."""
    async with session(url) as connection:
        [[events]] = await (await connection.execute("SELECT count(*) FROM event")).fetchall()
        cursor = await connection.execute("SELECT customer_id, measure, group_values, period_start, value FROM gauge")
        gauges = {
            GaugeKey(str(customer), str(measure), _group(group), f"{start:%Y-%m}"): Decimal(str(value))
            for customer, measure, group, start, value in await cursor.fetchall()
        }
    crossings: Counter[Crossing] = Counter()
    sequences: dict[tuple[str, GaugeKey], list[int]] = defaultdict(list)
    seats: dict[GaugeKey, list[str]] = defaultdict(list)
    for body in (await notifications(url)).values():
        data = json.loads(body)["data"]
        assert "omitted" not in data
        gauge, name = gauge_of(data), data["alert_name"]
        sequences[name, gauge].append(data["sequence"])
        for transition in data["transitions"]:
            if name == SEATS.name:
                seats[gauge].append(transition["kind"])
            else:
                assert transition["kind"] == REACHED
                crossings[Crossing(name, gauge, transition["level"])] += 1
    for numbers in sequences.values():
        assert numbers == list(range(1, len(numbers) + 1))
    for gauge, kinds in seats.items():
        assert kinds == [(REACHED, RESOLVED)[number % 2] for number in range(len(kinds))]
        assert (len(kinds) % 2 == 1) == (gauges[gauge] >= Decimal(SEATS.lines[0]))
    assert isinstance(events, int)
    return Books(events, gauges, crossings)


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


def compare(arrivals: Iterable[Arrival], secret: str, written: Mapping[str, str]) -> None:
    """Each request that a receiver had is signed, and is a notification that was written, byte for byte."""
    for arrival in arrivals:
        arrival.verify(secret)
        assert arrival.body.decode() == written[arrival.webhook_id]


def crossings_of(transitions: Iterable[Transition]) -> Counter[Crossing]:
    """What acknowledgements said was reached; without the seats, of which less is certain."""
    found: Counter[Crossing] = Counter()
    for one in transitions:
        if one.alert_name == SEATS.name:
            continue
        assert one.kind == TransitionKind.TRANSITION_KIND_REACHED
        measure = f"cost/{one.gauge.cost.currency}" if one.gauge.HasField("cost") else ""
        gauge = GaugeKey(
            one.gauge.customer_id,
            measure or f"usage/{one.gauge.usage.metric_id}",
            _group([(item.key, item.value) for item in one.gauge.group]),
            one.gauge.billing_period.start_time.ToDatetime().strftime("%Y-%m"),
        )
        found[Crossing(one.alert_name, gauge, one.level)] += 1
    return found


def gauge_of(data: Mapping[str, Any]) -> GaugeKey:
    """The gauge that a notification is about."""
    gauge = data["gauge"]
    measure = f"cost/{gauge['currency']}" if "currency" in gauge else f"usage/{gauge['metric_id']}"
    group = _group([(item["key"], item["value"]) for item in gauge["group"]])
    return GaugeKey(gauge["customer_id"], measure, group, gauge["period"]["start_time"][:7])


def _group(pairs: Any) -> str:
    return "".join(f"{key}={value}" for key, value in pairs)
