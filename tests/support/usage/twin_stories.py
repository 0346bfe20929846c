"""A story of random calls that two organizations make alike: alerts, their changes, facts, usage and its voids."""

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import grpc

from generated.tidemark.v1 import (
    alert_pb2,
    alert_service_pb2,
    metric_pb2,
    subscription_pb2,
    usage_pb2,
)
from runtime.clock import ManualClock
from tests.support.usage import raw_events, voiding
from tests.support.usage.backfill_workers import Worker, finish
from tests.support.usage.caller import (
    DEADLINE,
    Caller,
)
from tests.support.usage.organizations import organization
from tests.support.usage.percentages import put_customer, put_limit
from tests.support.usage.twin_alerts import CUSTOMERS, random_creation, random_thresholds
from tests.support.usage.twins import Call, Twin, both

METRICS = {"calls": "SUM", "jobs": "COUNT", "peak": "MAX", "last": "LATEST"}


async def new_twin(caller: Caller, other: Caller, clock: ManualClock) -> Twin:
    """An organization with metrics, on both servers."""
    name, key = await organization(caller.database_url, clock)
    callers = [Caller(one.server, clock, one.database_url, name, key) for one in (caller, other)]
    for metric, aggregation in METRICS.items():
        await callers[0].put_metric(metric, metric_pb2.Aggregation.Value(f"AGGREGATION_{aggregation}"))
    return Twin(callers)


class TwinStory:
    """Calls that are made by both organizations.

    with_ends: alerts are also disabled and archived. A quiet gauge keeps a level of such an alert, and is evaluated
    once in vain when it reaches it.
    """

    def __init__(
        self, seed: int, clock: ManualClock, twins: Sequence[Twin], step: Worker, *, with_ends: bool
    ) -> None:
        self.random = random.Random(seed)
        self.twins = twins
        self._clock = clock
        self._step = step
        self._days = [9, 9]  # that may pass; so few that all periods stay in grace
        self._events: list[tuple[str, str]] = []  # customer and id
        self._calls: dict[Callable[[], Awaitable[None]], int] = {
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
        }

    async def go_on(self) -> None:
        """Makes the next call."""
        [call] = self.random.choices(list(self._calls), list(self._calls.values()))
        await call()

    async def both(self, call: Call) -> list[Any]:
        """Makes a call by both organizations, at the same server."""
        return await both(self.twins, self.random.randrange(2), call)

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
            [sorted(map(of.named, map(str, shown))) for of, shown in zip(self.twins, each, strict=True)]
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

    async def create(self) -> None:
        """One alert, or several at one epoch."""
        size = self.random.choice((1, 1, 2, 3))
        request = alert_service_pb2.BatchCreateAlertsRequest(
            requests=[random_creation(self.random) for _ in range(size)]
        )

        async def created(_: Twin, caller: Caller) -> Any:
            return await caller.alerts.BatchCreateAlerts(request, metadata=caller.metadata, timeout=DEADLINE)

        for one, answer in zip(self.twins, await self.both(created), strict=True):
            if not isinstance(answer, grpc.StatusCode):
                one.alerts += answer.alerts

    async def create_and_send(self) -> None:
        """Usage that meets gauges of which nothing but new alerts is unknown."""
        await self.create()
        await self.send()

    def _one_of(self) -> int | None:
        """The number of an alert."""
        alerts = self.twins[0].alerts
        return self.random.randrange(len(alerts)) if alerts else None

    async def _update(self, number: int, change: Callable[[alert_pb2.Alert], None], path: str, reset: bool) -> None:
        policy = alert_service_pb2.STATE_POLICY_RESET if reset else alert_service_pb2.STATE_POLICY_UNSPECIFIED

        async def update(one: Twin, caller: Caller) -> None:
            request = alert_service_pb2.UpdateAlertRequest(alert=one.alerts[number], state_policy=policy)
            request.alert.etag = ""
            change(request.alert)
            request.update_mask.paths.append(path)
            answer = await caller.alerts.UpdateAlert(request, metadata=caller.metadata, timeout=DEADLINE)
            one.alerts[number] = answer.alert

        await self.both(update)

    async def change_levels(self) -> None:
        """Other thresholds."""
        number, levels, reset = self._one_of(), random_thresholds(self.random), self.random.random() < 0.2

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

        async def switch(one: Twin, caller: Caller) -> None:
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

        async def reset(one: Twin, caller: Caller) -> None:
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
        customer, plan = self.random.choice((("acme", ""), ("beta", ""), ("", "gold")))
        await self.both(lambda _, caller: put_limit(caller, amount, customer=customer, plan=plan))

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
        if self._days:
            self._clock.advance(timedelta(days=self._days.pop()))
