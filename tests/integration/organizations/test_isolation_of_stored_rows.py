"""Isolation, row by row: two organizations with the same ids and different values, each as if it were alone.

Tests that share a database find by chance what leaks from one organization into another, and tests with a database of
their own never do. Here one story is played three times: for each organization alone, and for both of them step by
step side by side. All that was answered and all that is stored has to be the same.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.message import Message

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    billing_period_pb2,
    customer_pb2,
    invoice_pb2,
    limit_pb2,
    metric_pb2,
    overage_pb2,
    plan_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
    usage_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from store.postgres.database import Database
from tests.support.balances.holder import GRANT, SEAT, Holder
from tests.support.balances.timing import timers_of
from tests.support.databases import Template
from tests.support.usage.caller import ALL_CUSTOMERS, BOTH, DEADLINE, Caller, calling, on_customer, on_plan, until
from tests.support.usage.organizations import organization

START = datetime(2026, 3, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)

# The tables that the story fills; the feed and deliveries follow from the outbox.
TABLES = (
    *("customer", "customer_name", "subscription", "metric", "plan", "usage_limit", "invoice", "wallet", "overage"),
    *("balance", "balance_segment", "balance_entry", "balance_adjustment", "balance_decrement"),
    *("alert", "alert_change", "alert_exclusion", "alert_state", "group_count"),
    *("event", "gauge", "unique_value", "notification", "outbox"),
)
# Numbers over the rows of all organizations, and digests of the organization's name.
DIFFERENT = ("notification_id", "entry_number", "etag")
NUMBERS = {"organization_id", "entry_number", "change_number", "outbox_id", "notification_id", "key_id"}


@dataclass
class Twin:
    """One organization in the story. `big` says which of the two it is: all their values differ."""

    caller: Caller
    big: bool
    answers: list[str] = field(default_factory=list)
    alerts: dict[str, str] = field(default_factory=dict)

    def of(self, small: str, big: str) -> str:
        """The value of this organization."""
        return big if self.big else small

    async def call(self, method: Callable[..., Any], request: Message) -> None:
        """Calls, and keeps the answer or the refusal."""
        try:
            answer: Message = await method(request, metadata=self.caller.metadata, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            self.answers.append(self.plain(f"{error.code()} {error.details()}"))
        else:
            if isinstance(answer, alert_service_pb2.EvaluateUsageBatchResponse):
                # Transitions are in the order of alert ids, which are random.
                answer.outcome.transitions.sort(key=lambda one: self.plain(text_format.MessageToString(one)))
                answer.outcome.gauges.sort(key=lambda one: text_format.MessageToString(one))
            self.answers.append(self.plain(text_format.MessageToString(answer)))

    async def alert(
        self, name: str, *values: str, scope: scope_pb2.AlertScope = ALL_CUSTOMERS, **condition: Any
    ) -> None:
        """Creates an alert that notifies of both kinds, and waits for its backfill; `80%` is of a limit."""
        thresholds = [
            threshold_pb2.Threshold(percent_of_limit=value[:-1], notify_on=BOTH)
            if value.endswith("%")
            else threshold_pb2.Threshold(value=value, notify_on=BOTH)
            for value in values
        ]
        made = alert_pb2.Alert(display_name=name, scope=scope, thresholds=thresholds)
        for field_name, value in condition.items():
            text_format.Parse(value, getattr(made, field_name))
            getattr(made, field_name).SetInParent()
        self.alerts[name] = (await self.caller.create(made)).alert_id

    async def send(self, *events: Any) -> None:
        """Sends a batch, and keeps the answer with the gauges."""
        request = alert_service_pb2.EvaluateUsageBatchRequest(
            batch=usage_pb2.UsageBatch(events=events, include_gauges=True)
        )
        await self.call(self.caller.alerts.EvaluateUsageBatch, request)

    async def limit(self, limit_id: str, amount: str, **of: str) -> None:
        """Puts a limit: of a customer or plan, of a metric's usage or a currency's cost."""
        made = limit_pb2.Limit(limit_id=limit_id, amount=amount)
        if "plan" in of:
            made.plan.plan_id = of["plan"]
        else:
            made.customer.customer_id = of["customer"]
        if "currency" in of:
            made.spend.currency = of["currency"]
        else:
            made.quantity.metric_id = of["metric"]
        await self.call(self.caller.accounts.PutLimit, account_service_pb2.PutLimitRequest(limit=made))

    def plain(self, text: str) -> str:
        """The text without values that differ by definition: ids of alerts, digests, numbers."""
        for name, alert_id in self.alerts.items():
            text = text.replace(alert_id, f"alert:{name}")
        lines = [one for one in text.splitlines() if not any(name in one for name in DIFFERENT)]
        return "\n".join(lines).replace(self.caller.organization, "organization")

    async def stored(self) -> dict[str, list[str]]:
        """Every row of the organization."""
        found: dict[str, list[str]] = {}
        for table in TABLES:
            query = f"SELECT row_to_json(t)::text FROM {table} t WHERE organization_id = %(organization_id)s"
            found[table] = sorted([self._row(json.loads(row)) for (row,) in await self.caller.rows(query)])
        return found

    def _row(self, row: dict[str, Any]) -> str:
        kept = {name: value for name, value in row.items() if name not in NUMBERS}
        if "body" in kept:
            body = json.loads(kept["body"])
            del body["id"]
            kept["body"] = body
        return self.plain(json.dumps(kept, sort_keys=True))


async def story(twin: Twin) -> AsyncIterator[timedelta]:
    """What happens to an organization; each step yields how far the clock moves after it."""
    caller, of, still = twin.caller, twin.of, timedelta()
    event, acme, beta = caller.event, Holder(caller, "acme"), Holder(caller, "beta")
    # Facts: metrics that add up differently, plans, currencies, time zones, and limits.
    sums, largest = metric_pb2.AGGREGATION_SUM, metric_pb2.AGGREGATION_MAX
    await caller.put_metric("calls", largest if twin.big else sums)
    await caller.put_metric("seats", metric_pb2.AGGREGATION_UNIQUE_COUNT, of("seat", "region"))
    await caller.put_metric("level", metric_pb2.AGGREGATION_LATEST)
    yield still
    plan = plan_pb2.Plan(plan_id="gold", display_name=of("small", "big"))
    await twin.call(caller.accounts.PutPlan, account_service_pb2.PutPlanRequest(plan=plan))
    zone = billing_period_pb2.BillingCycle(
        anchor_time=to_timestamp(START - 50 * DAY),
        cadence=billing_period_pb2.CADENCE_MONTH,
        time_zone=of("UTC", "Asia/Tokyo"),
    )
    await caller.put_customer(
        customer_pb2.Customer(
            customer_id="acme",
            external_id="crm-1",
            aliases=[of("a", "b"), "both"],
            plan_id=of("gold", "iron"),
            currency=of("USD", "EUR"),
            billing_cycle=zone,
            plan_end_time=to_timestamp(START + (9 if twin.big else 5) * DAY),
        )
    )
    await caller.put_customer(customer_pb2.Customer(customer_id="beta", plan_id=of("iron", "gold")))
    await caller.put_subscription(
        subscription_pb2.Subscription(
            customer_id="acme", subscription_id="pro", plan_id=of("gold", ""), currency=of("", "GBP")
        )
    )
    yield still
    await twin.limit("l1", of("50", "1000"), plan="gold", metric="calls")
    await twin.limit("l2", of("20", "0"), customer="acme", metric="calls")
    await twin.limit("l3", of("10", "90"), customer="acme", currency=of("USD", "EUR"))
    yield still
    # Usage before any alert: backfills recount it.
    await twin.send(
        event("e1", of("7", "9"), subscription="pro", cost=of("2", "3"), region="eu", seat="ann"),
        event("e2", of("5", "2"), cost=of("1", "4"), region=of("us", "eu"), seat="bob"),
        event("e3", of("3", "8"), "beta", cost="1", region="eu", seat="ann"),
        event("e4", "1", metric="seats", seat=of("ann", "bob"), region="eu"),
        event("e5", of("4", "6"), metric="level", at=START - HOUR),
        event("e6", of("2", "9"), metric="level", at=START - 2 * HOUR),
    )
    yield still
    await twin.alert("usage", of("15", "5"), "80%", usage_threshold_reached='metric_id: "calls"')
    await twin.alert(
        "regions", of("7", "8"), usage_threshold_reached='metric_id: "calls" group_values { key: "region" }'
    )
    await twin.alert("seats", of("2", "3"), usage_threshold_reached='metric_id: "seats"')
    await twin.alert("level", of("5", "7"), usage_threshold_reached='metric_id: "level"')
    await twin.alert("spend", of("5", "8"), "50%", spend_threshold_reached=f'currency: "{of("USD", "EUR")}"')
    await twin.alert("plan", of("4", "6"), scope=on_plan("gold"), usage_threshold_reached='metric_id: "calls"')
    await twin.alert("pro", of("2", "10"), scope=on_plan("gold"), cost_exceeded="")
    await twin.alert("days in plan", of("4", "8"), scope=on_customer(), low_remaining_days_in_plan_reached="")
    if twin.big:
        await twin.alert("of one only", "1", scope=on_customer("beta"), usage_threshold_reached='metric_id: "calls"')
    yield still
    # Balances: one of both units, one that ends, one of a seat, one that is voided, and what draws on them.
    usd = "USD"
    await twin.alert("low", of("4", "15"), low_remaining_commit_balance_reached='spend { currency: "USD" }')
    await twin.alert("share", of("50", "80"), low_remaining_commit_percentage_reached='spend { currency: "USD" }')
    await twin.alert("days", of("2", "5"), low_remaining_days_for_commit_segment_reached="")
    await twin.alert(
        "of seats", of("3", "8"), low_remaining_seat_balance_reached='seat_filter { seat_group_key: "seat" }'
    )
    await twin.alert("empty", scope=on_customer(), credit_balance_depleted='currency: "USD"')
    for holder, amount in ((acme, of("10", "40")), (beta, of("6", "3"))):
        end = START + (6 if twin.big else 3) * DAY
        await holder.put(
            "b1", spans=[(amount, START - DAY, end), (of("2", "5"), end, None)], priority=2 if twin.big else 1
        )
        await holder.put("b2", of("3", "30"), kind=GRANT, priority=1 if twin.big else 2)
        await holder.put("b3", of("9", "1"), draw=twin.big)
        await holder.put(
            "s1", spans=[(of("4", "9"), START, START + 4 * DAY)], kind=SEAT, seat=("seat", "ann"), draw=True
        )
    yield still
    await twin.send(
        event("e7", cost=of("3", "6"), currency=usd, seat="ann", region="eu"),
        event("e8", cost=of("30", "2"), currency=usd, seat="bob", region="eu"),
        event("e9", "1", "beta", cost=of("5", "50"), currency=usd, region="us"),
    )
    yield still
    await twin.send(
        event("e10", "1", cost=of("-4", "-1"), currency=usd, region="eu"),
        event("e11", "1", "beta", cost=of("-1", "-9"), currency=usd),
    )
    await acme.adjust("b1", of("5", "-5"), "a1")
    taken = account_service_pb2.DecrementBalancesRequest(
        customer_id="acme", adjustment_id="d1", amount=of("1", "2"), custom_fields={"who": of("small", "big")}
    )
    taken.spend.currency = of("USD", "EUR")
    taken.overage_policy = overage_pb2.OVERAGE_POLICY_ALLOW
    await twin.call(caller.accounts.DecrementBalances, taken)
    await (beta if twin.big else acme).void("b3")
    yield DAY
    # Invoices, alone and of a month.
    await twin.alert("invoice", of("50", "70"), invoice_total_reached='currency: "USD"')
    await twin.alert("month", of("100", "90"), monthly_invoice_total_spend_threshold_reached='currency: "USD"')
    for invoice_id, total, status in (
        ("i1", of("60", "40"), invoice_pb2.INVOICE_STATUS_ISSUED),
        ("i2", of("45", "75"), invoice_pb2.INVOICE_STATUS_PAID),
        ("i1", of("55", "60"), invoice_pb2.INVOICE_STATUS_VOID if twin.big else invoice_pb2.INVOICE_STATUS_PAID),
    ):
        invoice = invoice_pb2.Invoice(
            invoice_id=invoice_id,
            customer_id="acme",
            status=status,
            currency="USD",
            total=total,
            period_end_time=to_timestamp(START + DAY),
            as_of_time=to_timestamp(caller.clock.now()),
        )
        await twin.call(caller.accounts.PutInvoice, account_service_pb2.PutInvoiceRequest(invoice=invoice))
        yield timedelta(seconds=1)
    # One customer is left out, or not; an alert ends, or is forgotten.
    off = alert_service_pb2.DisableAlertRequest(
        alert_id=twin.alerts[of("regions", "usage")], customer_id=of("acme", "beta")
    )
    await twin.call(caller.alerts.DisableAlert, off)
    yield still
    await twin.send(
        event("e12", of("6", "12"), subscription="pro", cost=of("1", "2"), region="eu", seat="ann"),
        event("e13", of("2", "30"), "beta", region="us", seat="cid"),
        event("e14", "1", "beta", metric="seats", seat="cid", region="us"),
        event("e1", of("7", "9"), subscription="pro", cost=of("2", "3"), region="eu", seat="ann", at=START),
        event("e2", "999", at=START),
    )
    await twin.limit("l1", of("9", "31"), plan="gold", metric="calls")
    await twin.limit("l2", of("8", "14"), customer="acme", metric="calls")
    yield still
    on = alert_service_pb2.EnableAlertRequest(alert_id=off.alert_id, customer_id=off.customer_id)
    await twin.call(caller.alerts.EnableAlert, on)
    if twin.big:
        await caller.archive(twin.alerts["level"])
        forget = alert_service_pb2.ResetCustomerAlertRequest(alert_id=twin.alerts["regions"], customer_id="acme")
        await twin.call(caller.alerts.ResetCustomerAlert, forget)
    else:
        await caller.put_customer(customer_pb2.Customer(customer_id="beta", plan_id="gold"))
    off = alert_service_pb2.DisableAlertRequest(alert_id=twin.alerts["spend"], customer_id=of("acme", "beta"))
    await twin.call(caller.alerts.DisableAlert, off)
    yield 3 * DAY
    # Time: segments have ended and days have run out by now, of one of the two more than of the other.
    await twin.send(
        event("e15", of("9", "1"), cost="1", currency=usd, region="eu", seat="ann"),
        event("e16", "1", "beta", cost="2", currency=usd, seat="ann"),
        event("e17", of("1", "8"), "new", subscription="pro", cost="2", region="eu", metric="calls"),
    )
    yield still
    # What is read.
    for alert_id in twin.alerts.values():
        for customer in ("acme", "beta", "new"):
            shown = alert_service_pb2.GetCustomerAlertRequest(alert_id=alert_id, customer_id=customer)
            await twin.call(caller.alerts.GetCustomerAlert, shown)
    accounts = caller.accounts
    for customer in ("acme", "beta"):
        service = account_service_pb2
        await twin.call(accounts.ListBalances, service.ListBalancesRequest(customer_id=customer, include_voided=True))
        await twin.call(accounts.ListOverages, service.ListOveragesRequest(customer_id=customer))
        await twin.call(accounts.ListBalanceEntries, service.ListBalanceEntriesRequest(customer_id=customer))
        await twin.call(accounts.ListInvoices, service.ListInvoicesRequest(customer_id=customer))
    await twin.call(accounts.ListLimits, account_service_pb2.ListLimitsRequest())
    yield still


@dataclass(frozen=True)
class Result:
    """The answers and the stored rows of an organization."""

    answers: list[str]
    stored: dict[str, list[str]]


async def play(database_url: str, *big: bool) -> list[Result]:
    """Plays the story for one organization, or for two side by side, in the order given."""
    clock = ManualClock(START)
    async with AsyncExitStack() as stack:
        twins: list[Twin] = []
        for one in big:
            name, key = await organization(database_url, clock)
            if not twins:
                caller = await stack.enter_async_context(calling(database_url, clock, name, key))
            twins.append(Twin(Caller(caller.server, clock, database_url, name, key), one))
        database = Database(database_url, pool_size=2)
        stack.push_async_callback(database.close)
        timers = timers_of(database, clock)

        async def settled() -> bool:
            """Whether background work is complete: rows that it writes carry the epoch at that time."""
            await timers.sweep()
            [[waiting]] = await twins[0].caller.rows(
                "SELECT (SELECT count(*) FROM alert WHERE visit_after IS NOT NULL)"
                " + (SELECT count(*) FROM wallet WHERE due_time <= %(now)s)",
                now=clock.now(),
            )
            return int(waiting) == 0

        steps = [story(twin) for twin in twins]
        while moves := [move async for move in _next(steps)]:
            assert len(set(moves)) == 1
            clock.advance(moves[0])
            await until(settled)
        return [Result(twin.answers, await twin.stored()) for twin in twins]


async def _next(steps: list[AsyncIterator[timedelta]]) -> AsyncIterator[timedelta]:
    """The next step of each story."""
    for step in steps:
        try:
            yield await anext(step)
        except StopAsyncIteration:
            return


def assert_same(found: Result, alone: Result) -> None:
    """Compares answers and rows, and shows the first difference."""
    for number, (answer, expected) in enumerate(zip(found.answers, alone.answers, strict=True)):
        assert answer == expected, f"answer {number}"
    for table, rows in alone.stored.items():
        assert found.stored[table] == rows, table


async def test_two_organizations_with_the_same_ids_store_and_answer_as_each_does_alone(template: Template) -> None:
    [small] = await play(template.fresh_database(), False)
    [big] = await play(template.fresh_database(), True)
    found_small, found_big = await play(template.fresh_database(), False, True)
    assert_same(found_small, small)
    assert_same(found_big, big)
    # The two organizations differ in every table; otherwise the comparison would prove nothing.
    assert len(small.answers) > 50
    for table, rows in small.stored.items():
        assert rows, table
        assert rows != big.stored[table], table
