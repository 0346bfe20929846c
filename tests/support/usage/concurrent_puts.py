"""A story of many calls at the same time: puts of customers and limits, usage, and changes of alerts, on two servers.

After each round nothing is in progress, and each alert has to be in the state that the stored usage, plans and limits
ask for, without any further usage.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import grpc

from generated.tidemark.v1 import alert_pb2, customer_pb2, threshold_pb2
from tests.support.usage.caller import (
    ALL_CUSTOMERS,
    BOTH,
    Caller,
    on_customer,
    on_customer_plan,
    on_plan,
    spend_alert,
    until,
    usage_alert,
)
from tests.support.usage.percentages import percent, put_customer, put_limit

CUSTOMERS = ("acme", "beta", *(f"c{number}" for number in range(8)))
PLANS = ("gold", "silver", "")
REGIONS = ("eu", "us")
BY_REGION = [("region", None)]
AMOUNTS = ("10", "40", "1000", "2000", "5000", "")
MOST_ALERTS = 8
SHARE_OF_LIMITS = 0.4  # of rounds
REFUSALS = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)

Call = Callable[[], Awaitable[None]]
Key = tuple[str, str, str]  # of an alert on a gauge: alert id, customer and region ("": not by region)


@dataclass(frozen=True)
class Watching:
    """An alert of the story. unit: what it measures. level: a value, or a percentage of the limit of the unit."""

    alert_id: str
    unit: str  # calls, USD or region
    plan: str | None
    customer: str | None
    level: Decimal
    is_percentage: bool


class ConcurrentPuts:
    """The story, and what has to be stored after each round."""

    def __init__(self, seed: int, callers: Sequence[Caller]) -> None:
        self.random = random.Random(seed)
        self._callers = callers
        self._alerts: list[Watching] = []
        self._events = 0
        self._calls: dict[Callable[[], Call], int] = {
            self._send: 10,
            self._put_limit: 14,
            self._put_limit_of_plan: 2,
            self._put_plan: 6,
            self._create: 2,
            self._archive: 1,
        }

    async def begin(self) -> None:
        """Usage of each customer, and alerts without which most puts of limits would concern none."""
        alerts = {"calls": usage_alert(), "USD": spend_alert(currency="USD")}
        if self.random.random() < 0.5:  # no put of a limit on calls is quiet then
            alerts["region"] = usage_alert(groups=BY_REGION)
        for unit, alert in alerts.items():
            alert.thresholds.extend(percent("80"))
            created = await self._callers[0].create(alert)
            self._alerts.append(Watching(created.alert_id, unit, None, None, Decimal(80), is_percentage=True))
        events = [self._callers[0].event(f"first {one}", "9", one, cost="3", region="eu") for one in CUSTOMERS]
        await self._callers[0].send(*events)

    async def round(self, calls: int) -> None:
        """Makes calls at the same time, and waits until nothing is in progress.

        In some rounds all of them are puts of limits, most of which share a statement.
        """
        kinds = self.random.choices(list(self._calls), list(self._calls.values()), k=calls)
        if self.random.random() < SHARE_OF_LIMITS:
            kinds = [self._put_limit] * calls
        await asyncio.gather(*(self._allowed(made()) for made in kinds))
        await self._settled()

    async def _allowed(self, call: Call) -> None:
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            if error.code() not in REFUSALS:
                raise

    async def _settled(self) -> None:
        for customer in await self._noted():  # as the background does it later
            plan = (await self._plans()).get(customer, "")
            name = f"evaluated {self._events} {self.random.random()}"
            await self._callers[0].put_customer(
                customer_pb2.Customer(customer_id=customer, plan_id=plan, display_name=name)
            )
        assert await self._noted() == []

        async def backfilled() -> bool:
            query = "SELECT 1 FROM alert WHERE organization_id = %(organization_id)s AND visit_after IS NOT NULL"
            return not await self._callers[0].rows(query)

        await until(backfilled)

    async def _noted(self) -> list[str]:
        query = "SELECT customer_id FROM customer_evaluation WHERE organization_id = %(organization_id)s"
        return [one for (one,) in await self._callers[0].rows(query)]

    async def _plans(self) -> dict[str, str]:
        query = "SELECT customer_id, coalesce(plan_id, '') FROM customer WHERE organization_id = %(organization_id)s"
        return dict(await self._callers[0].rows(query))

    def _caller(self) -> Caller:
        return self.random.choice(self._callers)

    def _send(self) -> Call:
        caller, choice = self._caller(), self.random.choice
        events = []
        for _ in range(choice((1, 2, 5, 10))):
            self._events += 1
            cost = choice(("", str(choice((1, 2, 5)))))
            quantity = str(choice((1, 2, 3, 8, -1)))
            event = caller.event(f"e{self._events}", quantity, choice(CUSTOMERS), cost=cost)
            if choice((True, False)):
                event.properties["region"] = choice(REGIONS)
            events.append(event)

        async def send() -> None:
            assert (await caller.send(*events)).accepted == len(events)

        return send

    def _put_limit(self) -> Call:
        caller, customer, amount = self._caller(), self.random.choice(CUSTOMERS), self.random.choice(AMOUNTS)
        unit = self.random.choice(("calls", "USD", "region"))
        groups = BY_REGION if unit == "region" else []
        currency = "USD" if unit == "USD" else ""
        return lambda: put_limit(caller, amount, customer=customer, currency=currency, groups=groups)

    def _put_limit_of_plan(self) -> Call:
        caller, plan, amount = self._caller(), self.random.choice(PLANS[:2]), self.random.choice(AMOUNTS)
        return lambda: put_limit(caller, amount, plan=plan)

    def _put_plan(self) -> Call:
        caller, customer, plan = self._caller(), self.random.choice(CUSTOMERS), self.random.choice(PLANS)
        return lambda: put_customer(caller, customer, plan)

    def _create(self) -> Call:
        caller, choice = self._caller(), self.random.choice
        is_percentage, unit = choice((True, True, False)), choice(("calls", "calls", "USD", "region"))
        level = choice(("50", "80", "100")) if is_percentage else choice(("5", "30", "90", "200"))
        plan, customer = choice(((None, None), (None, None), ("gold", None), (None, "acme"), ("silver", "beta")))
        levels = percent(level) if is_percentage else [threshold_pb2.Threshold(value=level, notify_on=BOTH)]
        scope = ALL_CUSTOMERS
        if customer is not None:
            scope = on_customer(customer) if plan is None else on_customer_plan(customer, plan)
        elif plan is not None:
            scope = on_plan(plan)
        if unit == "USD":
            alert = spend_alert(currency="USD", scope=scope)
            alert.thresholds.extend(levels)
        else:
            alert = usage_alert(scope=scope, thresholds=levels, groups=BY_REGION if unit == "region" else [])

        async def create() -> None:
            if len(self._alerts) < MOST_ALERTS:
                created: alert_pb2.Alert = await caller.create_only(alert)
                watching = Watching(created.alert_id, unit, plan, customer, Decimal(level), is_percentage)
                self._alerts.append(watching)

        return create

    def _archive(self) -> Call:
        caller, chosen = self._caller(), self.random.choice(self._alerts) if self._alerts else None

        async def archive() -> None:
            if chosen in self._alerts:
                self._alerts.remove(chosen)
                await caller.archive(chosen.alert_id)

        return archive

    async def expected(self) -> dict[Key, bool]:
        """Whether each alert is reached, for each customer that it covers and has usage."""
        rows, plans, limits = self._callers[0].rows, await self._plans(), await self._limits()
        usage = await rows(
            "SELECT customer_id, coalesce(properties ->> 'region', ''), sum(quantity), coalesce(sum(cost), 0)"
            " FROM event WHERE organization_id = %(organization_id)s GROUP BY 1, 2"
        )
        found: dict[Key, bool] = {}
        for alert in self._alerts:
            totals: dict[tuple[str, str], Decimal] = {}
            for customer, region, quantity, cost in usage:
                if alert.unit == "region" and not region:
                    continue
                of = customer, region if alert.unit == "region" else ""
                totals[of] = totals.get(of, Decimal(0)) + (cost if alert.unit == "USD" else quantity)
            for (customer, region), total in totals.items():
                if alert.customer not in (None, customer) or alert.plan not in (None, plans[customer]):
                    continue
                level: Decimal | None = alert.level
                if alert.is_percentage:
                    limit = limits.get((customer, "", alert.unit))
                    limit = limits.get(("", plans[customer], alert.unit)) if limit is None else limit
                    level = None if limit is None else limit * alert.level / 100
                found[alert.alert_id, customer, region] = level is not None and total >= level
        return found

    async def _limits(self) -> dict[tuple[str, str, str], Decimal]:
        rows = await self._callers[0].rows(
            "SELECT coalesce(customer_id, ''), coalesce(plan_id, ''),"
            " CASE WHEN groups <> '[]' THEN 'region' ELSE coalesce(metric_id, currency) END, amount"
            " FROM usage_limit WHERE organization_id = %(organization_id)s AND amount IS NOT NULL"
        )
        return {(customer, plan, unit): amount for customer, plan, unit, amount in rows}

    async def stored(self, keys: Sequence[Key]) -> dict[Key, bool]:
        """Whether each of these alerts is reached on the gauge."""
        rows = await self._callers[0].rows(
            "SELECT s.alert_id, s.customer_id, coalesce(g.group_values #>> '{0,1}', ''), s.reached <> '{}'"
            " FROM alert_state s JOIN gauge g USING (organization_id, customer_id, gauge_id)"
            " WHERE organization_id = %(organization_id)s"
        )
        found = {(alert_id, customer, region): reached for alert_id, customer, region, reached in rows}
        return {key: found.get(key, False) for key in keys}

    async def notified(self, keys: Sequence[Key]) -> dict[Key, bool]:
        """Whether the last notification says that the alert is reached; they alternate."""
        found: dict[Key, list[str]] = {}
        for one in sorted(await self._callers[0].evaluations(), key=lambda each: each.sequence):
            group = one.body["data"]["gauge"].get("group", ())
            key = one.alert_id, one.customer_id, "".join(pair["value"] for pair in group)
            found.setdefault(key, []).extend(each.kind for each in one.transitions)
        for key, kinds in found.items():
            assert kinds == ["REACHED" if at % 2 == 0 else "RESOLVED" for at in range(len(kinds))], (key, kinds)
        return {key: found.get(key, ["RESOLVED"])[-1] == "REACHED" for key in keys}
