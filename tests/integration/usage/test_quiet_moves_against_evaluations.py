"""Random calls by two organizations: usage of one evaluates every stale gauge, and of the other only those that need it.

All that is stored and answered has to be the same. Backfills run when the story says so.
"""

import json
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest

from engine.evaluation.subjects import Movement
from engine.ingest import counting
from engine.puts.customer_evaluations import CustomerEvaluations
from engine.rules.transaction import Transaction
from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    condition_pb2,
    filter_pb2,
    metric_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
    usage_pb2,
)
from runtime.clock import ManualClock
from store.usage.gauges import Moved
from tests.support.usage import raw_events, voiding
from tests.support.usage.backfill_workers import Worker, Workers, finish
from tests.support.usage.caller import (
    ALL_CUSTOMERS,
    BOTH,
    DEADLINE,
    Caller,
    beside,
    on_customer,
    on_customer_plan,
    on_plan,
    on_subscription,
)
from tests.support.usage.organizations import organization
from tests.support.usage.percentages import put_customer, put_limit

STORIES = int(os.environ.get("TIDEMARK_TEST_STORIES", "4"))
STEPS = 80  # of a story

CUSTOMERS = ("acme", "beta", "gamma")
SCOPES = (
    *[ALL_CUSTOMERS] * 4,
    on_plan("gold"),
    on_customer("acme"),
    on_customer("beta"),
    on_customer_plan("acme", "gold"),
)
SUMS = ("calls", "jobs")
METRICS = {"calls": "SUM", "jobs": "COUNT", "peak": "MAX", "last": "LATEST"}
REFUSALS = (
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,  # an alert of one customer cannot be switched for another one
    grpc.StatusCode.NOT_FOUND,
)


class Organization:
    """One of the two, on two servers. alerts: as created, in their order."""

    def __init__(self, callers: Sequence[Caller]) -> None:
        self.callers = callers
        self.alerts: list[alert_pb2.Alert] = []

    async def stored(self, *, levels: bool) -> dict[str, list[Any]]:
        """The gauges, the states and the notifications, with nothing that depends on the organization.

        levels: with the trip levels of the gauges, and the epochs at which they were evaluated.
        """
        caller = self.callers[0]
        gauges = await caller.rows(
            "SELECT gauge_id::text, customer_id, measure, group_values, period_start, trim_scale(value), scale"
            + (", trim_scale(trip_above), trim_scale(trip_below), rules_epoch" if levels else "")
            + " FROM gauge WHERE organization_id = %(organization_id)s ORDER BY gauge_id"
        )
        states = await caller.rows(
            "SELECT gauge_id::text, alert_id, alert_version, reached, sequence, change_reason FROM alert_state"
            " WHERE organization_id = %(organization_id)s"
        )
        bodies = [
            {name: value for name, value in one.body.items() if name != "id"} for one in await caller.notifications()
        ]
        return {
            "gauges": gauges,
            "states": sorted(map(self.named, states)),
            "notifications": sorted(map(self.named, bodies)),
        }

    def named(self, found: object) -> str:
        """Something stored as text, with numbers in place of the ids of alerts."""
        text = json.dumps(found, sort_keys=True, default=str)
        for number, alert in enumerate(self.alerts):
            text = text.replace(alert.alert_id, f"alert-{number}")
        return text.replace(self.callers[0].organization, "organization")


Call = Callable[[Organization, Caller], Awaitable[Any]]


class Story:
    """Calls that are made by both organizations.

    with_ends: alerts are also disabled and archived. A quiet gauge keeps a level of such an alert, and is evaluated
    once in vain when it reaches it.
    """

    def __init__(
        self, seed: int, clock: ManualClock, organizations: Sequence[Organization], step: Worker, *, with_ends: bool
    ) -> None:
        self.random = random.Random(seed)
        self.organizations = organizations
        self._clock = clock
        self._step = step
        self._events: list[tuple[str, str]] = []  # customer and id
        self._calls: dict[Call, int] = {
            self.send: 25,
            self.create: 4,
            self.create_and_send: 20,
            self.change_levels: 2,
            self.rename: 1,
            self.switch: 2 * with_ends,
            self.switch_for_customer: 2,
            self.reset: 2,
            self.archive: with_ends,
            self.put_on_plan: 2,
            self.put_limit: 2,
            self.put_subscription: 2,
            self.void: 2,
            self.backfill: 4,
            self.count_raw_events: 1,
            self.pass_time: 1,
        }  # type: ignore[dict-item]

    async def go_on(self) -> None:
        """Makes the next call."""
        [call] = self.random.choices(list(self._calls), list(self._calls.values()))
        await call()  # type: ignore[call-arg]

    async def both(self, call: Call) -> list[Any]:
        """Makes a call by both organizations, at the same server; returns the answers, which are refused alike."""
        at, answers = self.random.randrange(2), list[Any]()
        for one in self.organizations:
            try:
                answers.append(await call(one, one.callers[at]))
            except grpc.aio.AioRpcError as error:
                assert error.code() in REFUSALS, error
                answers.append(error.code())
        if any(isinstance(one, grpc.StatusCode) for one in answers):
            assert answers[0] == answers[1]
        return answers

    async def send(self) -> None:
        """A batch of usage, of one event or several."""
        size = self.random.choice((1, 2, 5, 12, 30))
        chosen = [self._event() for _ in range(size)]
        answers = await self.both(lambda _, caller: caller.send(*(one(caller) for one in chosen), gauges=True))
        for answer in answers:
            assert answer.accepted == size
            for one in answer.transitions:
                one.notification_id = ""
        transitions, gauges = [
            [sorted(map(of.named, map(str, shown))) for of, shown in zip(self.organizations, each, strict=True)]
            for each in ([one.transitions for one in answers], [one.gauges for one in answers])
        ]
        assert transitions[0] == transitions[1]
        assert gauges[0] == gauges[1]

    def _event(self) -> Callable[[Caller], usage_pb2.UsageEvent]:
        choice, number = self.random.choice, len(self._events)
        customer, metric = (
            choice(CUSTOMERS),
            choice(("calls", "calls", "calls", "calls", "jobs", "jobs", "peak", "last", "")),
        )
        quantity = str(choice((1, 1, 2, 3, 5, -2, -6)))
        fields: dict[str, str] = {}
        if choice((True, False)):
            fields["subscription"] = choice(("main", "side"))
        if choice((True, False, False)):
            fields["team"] = choice(("red", "blue"))
        if choice((True, False, False)):
            fields["cost"] = str(choice((1, 4, -2)))
        ago = timedelta(days=choice((0, 0, 0, 0, 20)), seconds=number)
        self._events.append((customer, f"e{number}"))

        def event(caller: Caller) -> usage_pb2.UsageEvent:
            if not metric:
                return raw_events.raw(caller, f"e{number}", quantity, customer=customer, **fields)
            at = caller.clock.now() - ago
            return caller.event(f"e{number}", quantity, customer, metric=metric, at=at, **fields)

        return event

    def _thresholds(self) -> list[threshold_pb2.Threshold]:
        choice = self.random.choice
        levels = self.random.sample((4, 8, 12, 18, 25, 40, 60, 90, 150, 250), choice((1, 1, 2)))
        found = [threshold_pb2.Threshold(value=str(one), notify_on=BOTH) for one in levels]
        match choice(("plain", "plain", "hysteresis", "recurring", "percent")):
            case "hysteresis":
                found[0].resolve_value = str(min(levels) - 2)
            case "recurring":
                found.append(threshold_pb2.Threshold(recurring_step=str(choice((2, 7))), notify_on=BOTH))
            case "percent":
                found.append(threshold_pb2.Threshold(percent_of_limit=str(choice((50, 90))), notify_on=BOTH))
        return found

    def _alert(self) -> alert_service_pb2.CreateAlertRequest:
        choice = self.random.choice
        alert = alert_pb2.Alert(display_name="usage", scope=choice(SCOPES), thresholds=self._thresholds())
        metric = choice(("calls", "calls", "calls", "calls", "jobs", "jobs", "peak", "last", "tokens"))
        groups = [filter_pb2.GroupSelector(key="team", value=choice((None, "red")))]
        match choice(("usage", "usage", "usage", "usage", "groups", "spend", "contract", "subscription")):
            case "usage":
                alert.usage_threshold_reached.metric_id = metric
            case "groups":
                alert.usage_threshold_reached.metric_id = metric
                alert.usage_threshold_reached.group_values.extend(groups)
                if groups[0].value:
                    alert.scope.CopyFrom(ALL_CUSTOMERS)
            case "spend":
                alert.spend_threshold_reached.currency = "USD"
            case "contract":
                alert.spend_threshold_reached.CopyFrom(
                    condition_pb2.SpendThresholdReachedCondition(
                        currency="USD",
                        custom_field_filters=[
                            filter_pb2.CustomFieldFilter(
                                entity=filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT, key="region", value="eu"
                            )
                        ],
                    )
                )
                del alert.thresholds[1:]
            case "subscription":
                alert.usage_exceeded.metric_id = metric
                subscription = on_subscription(choice(("main", "side")), choice(CUSTOMERS))
                scope: scope_pb2.AlertScope = choice((subscription, subscription, on_plan("gold")))
                alert.scope.CopyFrom(scope)
        return alert_service_pb2.CreateAlertRequest(alert=alert, evaluate_on_create=choice((None, True, False)))

    async def create(self) -> None:
        """One alert, or several at one epoch."""
        size = self.random.choice((1, 1, 2, 3))
        request = alert_service_pb2.BatchCreateAlertsRequest(requests=[self._alert() for _ in range(size)])

        async def created(_: Organization, caller: Caller) -> Any:
            return await caller.alerts.BatchCreateAlerts(request, metadata=caller.metadata, timeout=DEADLINE)

        for one, answer in zip(self.organizations, await self.both(created), strict=True):
            if not isinstance(answer, grpc.StatusCode):
                one.alerts += answer.alerts

    async def create_and_send(self) -> None:
        """Usage that meets gauges of which nothing but new alerts is unknown."""
        await self.create()
        await self.send()

    def _one_of(self) -> int | None:
        """The number of an alert."""
        alerts = self.organizations[0].alerts
        return self.random.randrange(len(alerts)) if alerts else None

    async def _update(self, number: int, change: Callable[[alert_pb2.Alert], None], path: str, reset: bool) -> None:
        policy = alert_service_pb2.STATE_POLICY_RESET if reset else alert_service_pb2.STATE_POLICY_UNSPECIFIED

        async def update(one: Organization, caller: Caller) -> None:
            request = alert_service_pb2.UpdateAlertRequest(alert=one.alerts[number], state_policy=policy)
            request.alert.etag = ""
            change(request.alert)
            request.update_mask.paths.append(path)
            answer = await caller.alerts.UpdateAlert(request, metadata=caller.metadata, timeout=DEADLINE)
            one.alerts[number] = answer.alert

        await self.both(update)

    async def change_levels(self) -> None:
        """Other thresholds."""
        number, levels, reset = self._one_of(), self._thresholds(), self.random.random() < 0.2

        def change(alert: alert_pb2.Alert) -> None:
            del alert.thresholds[:]
            alert.thresholds.extend(levels)

        if number is not None:
            await self._update(number, change, "thresholds", reset)

    async def rename(self) -> None:
        """A change that has nothing to do with the evaluation."""
        number, name = self._one_of(), f"name {len(self._events)}"

        def change(alert: alert_pb2.Alert) -> None:
            alert.display_name = name

        if number is not None:
            await self._update(number, change, "display_name", False)

    async def switch(self) -> None:
        """An alert is disabled, or enabled."""
        await self._switch({})

    async def switch_for_customer(self) -> None:
        """An alert is disabled for a customer, or enabled."""
        await self._switch({"customer_id": self.random.choice(CUSTOMERS)})

    async def _switch(self, target: dict[str, str]) -> None:
        number, on = self._one_of(), self.random.random() < 0.5
        if number is None:
            return

        async def switch(one: Organization, caller: Caller) -> None:
            ids: dict[str, Any] = {"alert_id": one.alerts[number].alert_id, **target}
            if on:
                await caller.alerts.EnableAlert(
                    alert_service_pb2.EnableAlertRequest(**ids), metadata=caller.metadata, timeout=DEADLINE
                )
            else:
                await caller.alerts.DisableAlert(
                    alert_service_pb2.DisableAlertRequest(**ids), metadata=caller.metadata, timeout=DEADLINE
                )

        await self.both(switch)

    async def reset(self) -> None:
        """An alert forgets a customer."""
        number, customer = self._one_of(), self.random.choice(CUSTOMERS)
        if number is None:
            return

        async def reset(one: Organization, caller: Caller) -> None:
            request = alert_service_pb2.ResetCustomerAlertRequest(
                alert_id=one.alerts[number].alert_id, customer_id=customer
            )
            await caller.alerts.ResetCustomerAlert(request, metadata=caller.metadata, timeout=DEADLINE)

        await self.both(reset)

    async def archive(self) -> None:
        """An alert ends."""
        number = self._one_of()
        if number is not None:
            await self.both(lambda one, caller: caller.archive(one.alerts[number].alert_id))

    async def put_on_plan(self) -> None:
        """A customer has another plan."""
        customer, plan = self.random.choice(CUSTOMERS), self.random.choice(("gold", "silver", ""))
        await self.both(lambda _, caller: put_customer(caller, customer, plan))

    async def put_limit(self) -> None:
        """Another limit of a customer or a plan, or none."""
        amount = self.random.choice(("5", "20", "60", ""))
        holder = self.random.choice(({"customer": "acme"}, {"customer": "beta"}, {"plan": "gold"}))
        await self.both(lambda _, caller: put_limit(caller, amount, **holder))

    async def put_subscription(self) -> None:
        """A subscription has another plan or other custom fields."""
        subscription = subscription_pb2.Subscription(
            customer_id=self.random.choice(CUSTOMERS),
            subscription_id=self.random.choice(("main", "side")),
            plan_id=self.random.choice(("gold", "")),
            custom_fields=self.random.choice(({}, {"region": "eu"})),
        )
        await self.both(lambda _, caller: caller.put_subscription(subscription))

    async def void(self) -> None:
        """Usage is taken back."""
        if self._events:
            wanted = set(self.random.sample(self._events, min(3, len(self._events))))
            keys = [voiding.key(event_id, customer) for customer, event_id in sorted(wanted)]
            answers = await self.both(lambda _, caller: voiding.void(caller, *keys))
            assert voiding.outcomes(answers[0]) == voiding.outcomes(answers[1])

    async def backfill(self) -> None:
        """All backfills of both organizations."""
        await finish(self._step)

    async def count_raw_events(self) -> None:
        """A metric in which raw events count."""
        await self.both(lambda _, caller: raw_events.put(caller, "tokens"))

    async def pass_time(self) -> None:
        """Some days pass, perhaps into the next month."""
        self._clock.advance(timedelta(days=9))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> Counter[int]:
    """How many gauges were taken as evaluated, by organization; none of organization 0, which is to be set."""
    found, settle = Counter[int](), counting.settle_quiet_moves

    async def unless_full(
        transaction: Transaction, stale: Sequence[tuple[Movement, Moved]]
    ) -> list[tuple[Movement, Moved]]:
        if transaction.organization_id in EVALUATING:
            return list(stale)
        left = await settle(transaction, stale)
        found[transaction.organization_id] += len(stale) - len(left)
        return left

    async def never(*_: object) -> bool:
        return False

    monkeypatch.setattr(counting, "settle_quiet_moves", unless_full)
    monkeypatch.setattr(CustomerEvaluations, "run_once", never)
    return found


EVALUATING: set[int] = set()


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Caller]:
    """Another server on the same database."""
    async with beside(caller) as second:
        yield second


@pytest.mark.parametrize("seed", range(STORIES))
async def test_quiet_moves_leave_what_evaluations_leave(
    caller: Caller, other: Caller, clock: ManualClock, workers: Workers, settled: Counter[int], seed: int
) -> None:
    organizations = []
    for evaluates in (True, False):
        name, key = await organization(caller.database_url, clock)
        callers = [Caller(one.server, clock, one.database_url, name, key) for one in (caller, other)]
        for metric, aggregation in METRICS.items():
            await callers[0].put_metric(metric, metric_pb2.Aggregation.Value(f"AGGREGATION_{aggregation}"))
        [[organization_id]] = await callers[0].rows("SELECT %(organization_id)s")
        if evaluates:
            EVALUATING.add(organization_id)
        organizations.append(Organization(callers))
    with_ends = seed % 2 == 1
    story = Story(seed, clock, organizations, workers(), with_ends=with_ends)
    for _ in range(STEPS):
        await story.go_on()
        evaluated, quiet = [await one.stored(levels=not with_ends) for one in organizations]
        for table in evaluated:
            assert quiet[table] == evaluated[table]
    print("settled", dict(settled))
