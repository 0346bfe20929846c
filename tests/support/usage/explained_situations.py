"""Random situations of one customer and one alert, in which an explanation is compared with what the engine does."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    customer_pb2,
    explanation_pb2,
    limit_pb2,
    metric_pb2,
    threshold_pb2,
    transition_pb2,
    usage_pb2,
)
from generated.tidemark.v1.threshold_pb2 import TRANSITION_KIND_REACHED
from tests.support.usage.caller import (
    ALL_CUSTOMERS,
    BOTH,
    REACHED,
    RESOLVED,
    Caller,
    on_customer,
    on_plan,
    usage_alert,
)

TINY = Decimal("0.000001")
MUCH = Decimal(1_000_000)
AGGREGATIONS = (
    metric_pb2.AGGREGATION_SUM,
    metric_pb2.AGGREGATION_SUM,
    metric_pb2.AGGREGATION_COUNT,
    metric_pb2.AGGREGATION_MAX,
    metric_pb2.AGGREGATION_LATEST,
    metric_pb2.AGGREGATION_UNIQUE_COUNT,
)
GROUP = ("region", "eu")


@dataclass
class Situation:
    """One customer with one alert on a metric of its own."""

    caller: Caller
    number: int
    chance: random.Random
    alert_id: str = ""
    aggregation: metric_pb2.Aggregation.ValueType = metric_pb2.AGGREGATION_SUM
    is_grouped: bool = False
    _events: int = field(default=0)

    @property
    def customer(self) -> str:
        return f"customer-{self.number}"

    @property
    def metric(self) -> str:
        return f"metric-{self.number}"

    async def arrange(self) -> None:
        """Puts facts, creates the alert before, between or after usage, and perhaps changes it."""
        chance = self.chance
        self.aggregation = chance.choice(AGGREGATIONS)
        self.is_grouped = chance.random() < 0.3
        is_unique = self.aggregation == metric_pb2.AGGREGATION_UNIQUE_COUNT
        await self.caller.put_metric(self.metric, self.aggregation, "seat" if is_unique else "")
        plan = chance.choice(("gold", "silver"))
        await self.caller.put_customer(customer_pb2.Customer(customer_id=self.customer, plan_id=plan))
        if chance.random() < 0.6:
            await self.put_limit(chance.choice(("100", "7", "0")))
        await self.use(chance.randrange(4))
        await self.create()
        await self.use(chance.randrange(6))
        for _ in range(chance.randrange(3)):
            await chance.choice((self.change, self.switch, self.reset, self.move_limit))()
            await self.use(chance.randrange(3))

    async def create(self) -> None:
        """Creates the alert, and waits for its backfill."""
        chance = self.chance
        scope = chance.choice((ALL_CUSTOMERS, on_customer(self.customer), on_plan("gold")))
        groups = [GROUP if chance.random() < 0.5 else (GROUP[0], None)] if self.is_grouped else []
        alert = usage_alert(metric=self.metric, scope=scope, groups=groups, thresholds=self.thresholds())
        created = await self.caller.create(alert, evaluate=chance.random() < 0.7)
        self.alert_id = created.alert_id

    def thresholds(self) -> list[threshold_pb2.Threshold]:
        """One to four thresholds of all kinds."""
        chance = self.chance
        levels = sorted(chance.sample(range(1, 40), chance.randrange(1, 4)))
        found = []
        for level in levels:
            threshold = threshold_pb2.Threshold(value=str(level), notify_on=self.kinds())
            if chance.random() < 0.3:
                threshold.resolve_value = str(level - 1)
            found.append(threshold)
        if chance.random() < 0.4:
            step = str(chance.randrange(1, 15))
            found.append(threshold_pb2.Threshold(recurring_step=step, notify_on=self.kinds()))
        if chance.random() < 0.4:
            found.append(threshold_pb2.Threshold(percent_of_limit="50", notify_on=self.kinds()))
        return found[chance.randrange(len(found)) :] if chance.random() < 0.3 else found

    def kinds(self) -> Sequence[threshold_pb2.TransitionKind.ValueType]:
        return self.chance.choice(((REACHED,), BOTH, (RESOLVED,)))

    async def put_limit(self, amount: str) -> None:
        limit = limit_pb2.Limit(limit_id=f"limit-{self.number}", amount=amount)
        limit.customer.customer_id = self.customer
        limit.quantity.metric_id = self.metric
        request = account_service_pb2.PutLimitRequest(limit=limit)
        await self.caller.accounts.PutLimit(request, metadata=self.caller.metadata)

    async def move_limit(self) -> None:
        """Puts another limit."""
        await self.put_limit(self.chance.choice(("20", "60", "0")))

    async def change(self) -> None:
        """Gives the alert other thresholds."""
        alert = alert_pb2.Alert(alert_id=self.alert_id, thresholds=self.thresholds())
        request = alert_service_pb2.UpdateAlertRequest(alert=alert)
        request.update_mask.paths.append("thresholds")
        await self.caller.alerts.UpdateAlert(request, metadata=self.caller.metadata)
        await self.caller.backfilled(self.alert_id)

    async def switch(self) -> None:
        """Disables the alert, as a whole or for the customer; perhaps usage comes, and it is enabled again."""
        customer = self.chance.choice(("", self.customer))
        disable = alert_service_pb2.DisableAlertRequest(alert_id=self.alert_id, customer_id=customer)
        await self.caller.alerts.DisableAlert(disable, metadata=self.caller.metadata)
        await self.use(self.chance.randrange(3))
        if self.chance.random() < 0.7:
            enable = alert_service_pb2.EnableAlertRequest(alert_id=self.alert_id, customer_id=customer)
            await self.caller.alerts.EnableAlert(enable, metadata=self.caller.metadata)
            await self.caller.backfilled(self.alert_id)

    async def reset(self) -> None:
        """Edits the alert so that it forgets its states."""
        alert = alert_pb2.Alert(alert_id=self.alert_id, thresholds=self.thresholds())
        request = alert_service_pb2.UpdateAlertRequest(alert=alert, state_policy=alert_service_pb2.STATE_POLICY_RESET)
        request.update_mask.paths.append("thresholds")
        await self.caller.alerts.UpdateAlert(request, metadata=self.caller.metadata)
        await self.caller.backfilled(self.alert_id)

    async def use(self, count: int) -> None:
        """Sends events of random amounts, some of them corrections."""
        for _ in range(count):
            amount = Decimal(self.chance.randrange(-20, 120)) / 10
            await self.send(amount)

    async def send(self, amount: Decimal) -> list[transition_pb2.Transition]:
        """Sends an event; returns the notified transitions of the alert that reach a threshold."""
        self._events += 1
        event = self.caller.event(
            f"e{self._events:06d}", f"{amount:f}", self.customer, metric=self.metric, seat=f"s{self._events}"
        )
        event.properties[GROUP[0]] = GROUP[1]
        return self.notified(await self.caller.send(event))

    def notified(self, outcome: usage_pb2.UsageOutcome) -> list[transition_pb2.Transition]:
        """The notified transitions of the alert that reach a threshold."""
        assert not outcome.rejected
        return [
            one
            for one in outcome.transitions
            if one.alert_id == self.alert_id and one.notified and one.kind == TRANSITION_KIND_REACHED
        ]

    async def explain(self) -> explanation_pb2.CustomerAlertExplanation:
        """Explains the alert for the customer, for the only group that is used."""
        request = alert_service_pb2.ExplainCustomerAlertRequest(alert_id=self.alert_id, customer_id=self.customer)
        if self.is_grouped:
            request.group.add(key=GROUP[0], value=GROUP[1])
        answer = await self.caller.alerts.ExplainCustomerAlert(request, metadata=self.caller.metadata)
        return answer.explanation
