"""What the console shows in its tests and screenshots: customers with usage, balances, invoices, limits and alerts.

Everything is made by calls of the API.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import grpc
from google.protobuf import text_format

from generated.tidemark.v1 import account_service_pb2 as accounts
from generated.tidemark.v1 import alert_pb2, balance_pb2, customer_pb2, invoice_pb2, limit_pb2, plan_pb2
from generated.tidemark.v1 import alert_service_pb2 as alerts
from generated.tidemark.v1 import limit_service_pb2 as limits
from generated.tidemark.v1 import webhook_service_pb2 as webhooks
from generated.tidemark.v1.account_service_pb2_grpc import AccountServiceStub
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.billing_period_pb2 import CADENCE_MONTH
from generated.tidemark.v1.endpoint_pb2 import Endpoint
from generated.tidemark.v1.limit_service_pb2_grpc import LimitServiceStub
from generated.tidemark.v1.requested_usage_pb2 import RequestedUsage
from generated.tidemark.v1.usage_pb2 import UsageBatch, UsageEvent
from generated.tidemark.v1.webhook_service_pb2_grpc import WebhookServiceStub
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp

TRAFFIC = timedelta(minutes=10)
_INTERVAL = timedelta(seconds=10)

Metadata = tuple[tuple[str, str], ...]

CUSTOMERS = {
    "acme": ("Acme Robotics", "pro"),
    "globex": ("Globex Corporation", "pro"),
    "initech": ("Initech", "starter"),
    "hooli": ("Hooli", "enterprise"),
    "umbrella": ("Umbrella Health", "starter"),
    "vandelay": ("Vandelay Industries", ""),
}

ALERTS = {
    "spend": """
        display_name: "Spend of every customer" scope { all_customers {} } spend_threshold_reached {}
        thresholds { value: "250" code: "half" severity: SEVERITY_INFO }
        thresholds { value: "500" severity: SEVERITY_WARNING notify_on: TRANSITION_KIND_REACHED
            notify_on: TRANSITION_KIND_RESOLVED }
        thresholds { recurring_step: "250" severity: SEVERITY_CRITICAL }
        labels { key: "team" value: "revenue" }
        uniqueness_key: "spend"
    """,
    "tokens": """
        display_name: "LLM tokens, 80 % of the limit" scope { plan { plan_id: "pro" } }
        usage_threshold_reached { metric_id: "tokens" }
        thresholds { percent_of_limit: "50" severity: SEVERITY_INFO }
        thresholds { percent_of_limit: "80" severity: SEVERITY_WARNING }
        thresholds { percent_of_limit: "100" code: "block" severity: SEVERITY_CRITICAL }
        labels { key: "team" value: "platform" }
    """,
    "by_model": """
        display_name: "Tokens by model" scope { customer { customer_id: "acme" } }
        usage_threshold_reached { metric_id: "tokens" group_values { key: "model" } }
        thresholds { value: "300000" severity: SEVERITY_WARNING }
        thresholds { value: "1000000" severity: SEVERITY_CRITICAL }
    """,
    "commit": """
        display_name: "Commit is running out" scope { all_customers {} }
        low_remaining_commit_percentage_reached { spend { currency: "USD" } }
        thresholds { value: "25" severity: SEVERITY_WARNING resolve_value: "40" }
        thresholds { value: "10" severity: SEVERITY_CRITICAL }
        labels { key: "team" value: "revenue" }
    """,
    "credits": """
        display_name: "Prepaid credits are low" scope { all_customers {} } low_credit_balance_reached {}
        thresholds { value: "50" severity: SEVERITY_WARNING }
    """,
    "invoice": """
        display_name: "Large invoice" scope { all_customers {} } invoice_total_reached { currency: "USD" }
        thresholds { value: "1000" severity: SEVERITY_INFO }
    """,
}

# Only of screenshots: crossings in the last hours, which the overview shows.
CALLS = """
    display_name: "API calls" scope { all_customers {} } usage_threshold_reached { metric_id: "api_calls" }
    thresholds { value: "100" severity: SEVERITY_INFO }
    thresholds { value: "250" severity: SEVERITY_INFO }
    thresholds { value: "500" severity: SEVERITY_WARNING }
    thresholds { value: "1500" severity: SEVERITY_CRITICAL }
    labels { key: "team" value: "platform" }
"""


@dataclass
class Made:
    """What was made. alerts: the ids by the names of ALERTS."""

    alerts: dict[str, str]
    endpoint_id: str = ""
    failing_endpoint_id: str = ""


@dataclass(frozen=True)
class Caller:
    """The stubs and the credential."""

    channel: grpc.aio.Channel
    metadata: Metadata

    async def __call__(self, method: str, request: Any) -> Any:
        """Calls a method of any service by its name."""
        for stub in (AlertServiceStub, AccountServiceStub, WebhookServiceStub, LimitServiceStub):
            found = getattr(stub(self.channel), method, None)
            if found is not None:
                return await found(request, metadata=self.metadata, timeout=60)
        raise AssertionError(method)


async def make(
    channel: grpc.aio.Channel,
    metadata: Metadata,
    clock: ManualClock,
    *,
    urls: Sequence[str] = (),
    customers: Sequence[str] = tuple(CUSTOMERS),
    days: int = 20,
    seed: int = 7,
    with_calls: bool = False,
) -> Made:
    """Makes everything. urls: of webhook receivers, the second one fails. with_calls: see CALLS.

    The clock moves on by `days`: usage, ledgers and notifications have times in all of them.
    """
    call, now = Caller(channel, metadata), clock.now() + timedelta(days=days)
    made = Made({})
    if urls:
        created = await call("CreateEndpoint", _endpoint(urls[0], "Billing service"))
        made.endpoint_id = created.endpoint.endpoint_id
    if len(urls) > 1:
        created = await call("CreateEndpoint", _endpoint(urls[1], "Chat of the sales team"))
        made.failing_endpoint_id = created.endpoint.endpoint_id
    await _facts(call, now, customers, days)
    for name, text in (ALERTS | ({"calls": CALLS} if with_calls else {})).items():
        alert = text_format.Parse(text, alert_pb2.Alert())
        answer = await call("CreateAlert", alerts.CreateAlertRequest(alert=alert))
        made.alerts[name] = answer.alert.alert_id
    events = _usage(now, customers, days, seed) + (_calls(now, customers, seed) if with_calls else [])
    for batch in _batches(events):
        clock.set(max(clock.now(), batch[-1].event_time.ToDatetime(tzinfo=UTC)))
        answer = await call("EvaluateUsageBatch", alerts.EvaluateUsageBatchRequest(batch=UsageBatch(events=batch)))
        assert not answer.outcome.rejected, answer.outcome.rejected[0]
    clock.set(now)
    await _reserve(call)
    return made


def _endpoint(url: str, name: str) -> webhooks.CreateEndpointRequest:
    return webhooks.CreateEndpointRequest(endpoint=Endpoint(url=url, display_name=name, labels={"team": "revenue"}))


async def _facts(call: Caller, now: datetime, customers: Sequence[str], days: int) -> None:
    for plan_id, name in (("pro", "Pro"), ("starter", "Starter"), ("enterprise", "Enterprise")):
        await call("PutPlan", accounts.PutPlanRequest(plan=plan_pb2.Plan(plan_id=plan_id, display_name=name)))
    # The billing period has begun with the first day, and ends after the last one.
    anchor = (now - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)
    for customer_id in customers:
        name, plan_id = CUSTOMERS.get(customer_id, (customer_id.title(), ""))
        customer = customer_pb2.Customer(customer_id=customer_id, display_name=name, plan_id=plan_id)
        customer.billing_cycle.anchor_time.CopyFrom(to_timestamp(anchor))
        customer.billing_cycle.cadence = CADENCE_MONTH
        if customer_id == "acme":
            customer.external_id = "crm-0042"
        await call("PutCustomer", accounts.PutCustomerRequest(customer=customer))
    await call("PutLimit", accounts.PutLimitRequest(limit=_limit("tokens-pro", "pro", "2000000")))
    await call("PutLimit", accounts.PutLimitRequest(limit=_limit("tokens-acme", "", "3000000", "acme")))
    start = to_timestamp(anchor - timedelta(days=60))
    for customer_id, kind, amount, name, priority in (
        ("acme", balance_pb2.BALANCE_KIND_COMMIT, "1350", "Annual commit", 2),
        ("acme", balance_pb2.BALANCE_KIND_CREDIT_GRANT, "120", "Welcome credits", 1),
        ("globex", balance_pb2.BALANCE_KIND_COMMIT, "5000", "Annual commit", 1),
        ("initech", balance_pb2.BALANCE_KIND_CREDIT_GRANT, "200", "Prepaid credits", 1),
    ):
        balance = balance_pb2.Balance(
            balance_id=name.lower().replace(" ", "-"),
            customer_id=customer_id,
            display_name=name,
            kind=kind,
            priority=priority,
            draw_down=True,
            segments=[balance_pb2.BalanceSegment(amount=amount, start_time=start)],
        )
        balance.spend.currency = "USD"
        if name == "Annual commit":
            balance.segments[0].end_time.CopyFrom(to_timestamp(anchor + timedelta(days=300)))
        await call("PutBalance", accounts.PutBalanceRequest(balance=balance))
    for customer_id, number, total, status in (
        ("acme", 1, "742.10", invoice_pb2.INVOICE_STATUS_PAID),
        ("acme", 2, "1180.55", invoice_pb2.INVOICE_STATUS_ISSUED),
        ("globex", 1, "312.40", invoice_pb2.INVOICE_STATUS_PAID),
    ):
        invoice = invoice_pb2.Invoice(
            invoice_id=f"INV-{2000 + number}",
            customer_id=customer_id,
            type="USAGE",
            status=status,
            currency="USD",
            total=total,
            period_end_time=to_timestamp(anchor - timedelta(days=30 * (2 - number))),
        )
        await call("PutInvoice", accounts.PutInvoiceRequest(invoice=invoice))


def _limit(limit_id: str, plan_id: str, amount: str, customer_id: str = "") -> limit_pb2.Limit:
    limit = limit_pb2.Limit(limit_id=limit_id, amount=amount, enforcement=limit_pb2.LIMIT_ENFORCEMENT_HARD)
    limit.quantity.metric_id = "tokens"
    if customer_id:
        limit.customer.customer_id = customer_id
    else:
        limit.plan.plan_id = plan_id
    return limit


def _usage(now: datetime, customers: Sequence[str], days: int, seed: int) -> list[UsageEvent]:
    random = Random(seed)
    events = []
    for rank, customer_id in enumerate(customers):
        hours = days * 24
        for hour in range(0, hours, 3):
            time = now - timedelta(hours=hours - hour) + timedelta(minutes=random.randrange(170))
            day_share = 0.35 + 0.65 * max(math.sin((time.hour - 6) / 24 * 2 * math.pi), 0) + random.random() * 0.25
            if time.weekday() >= 5:
                day_share *= 0.4
            growth = 0.6 + hour / hours
            for model, price, share in (("large", "0.0009", 0.6), ("small", "0.00025", 1.0)):
                quantity = int(15_000 * day_share * growth * share / (1 + rank * 0.55))
                if not quantity:
                    continue
                cost = (Decimal(quantity) * Decimal(price)).quantize(Decimal("0.0001"))
                events.append(
                    UsageEvent(
                        event_id=f"{customer_id}-{hour}-{model}",
                        customer_id=customer_id,
                        metric_id="tokens",
                        quantity=str(quantity),
                        cost=f"{cost:f}",
                        event_time=to_timestamp(min(time, now)),
                        properties={"model": model, "region": random.choice(("eu", "us"))},
                    )
                )
    return events


def _calls(now: datetime, customers: Sequence[str], seed: int) -> list[UsageEvent]:
    """A day of API calls."""
    random = Random(seed)
    return [
        UsageEvent(
            event_id=f"calls-{customer_id}-{minutes}",
            customer_id=customer_id,
            metric_id="api_calls",
            quantity=str(random.randrange(2, 16 - 2 * rank)),
            event_time=to_timestamp(now - timedelta(minutes=minutes)),
        )
        for minutes in range(24 * 60, 0, -20)
        for rank, customer_id in enumerate(customers)
    ]


def _batches(events: list[UsageEvent]) -> list[list[UsageEvent]]:
    """Batches of events, in the order of their times."""
    events.sort(key=lambda event: event.event_time.seconds)
    # Small batches: the notifications and the ledger of balances have many entries then, at many times.
    return [events[first : first + 40] for first in range(0, len(events), 40)]


async def _reserve(call: Caller) -> None:
    for number, quantity in enumerate(("12000", "4500")):
        request = limits.ReserveUsageRequest(
            reservation_id=f"req-{9000 + number}",
            usage=RequestedUsage(
                customer_id="acme", metric_id="tokens", quantity=quantity, properties={"model": "large"}
            ),
        )
        request.ttl.FromTimedelta(timedelta(minutes=10))
        await call("ReserveUsage", request)


async def traffic(channel: grpc.aio.Channel, metadata: Metadata, clock: ManualClock, *, seed: int = 5) -> None:
    """Some minutes of usage (TRAFFIC), which the overview shows: a batch in each of its intervals."""
    call, random = Caller(channel, metadata), Random(seed)
    for number in range(TRAFFIC // _INTERVAL):
        clock.advance(_INTERVAL)
        size = int(120 + 60 * math.sin(number / 9) + random.randrange(50))
        events = [
            UsageEvent(
                event_id=f"live-{number}-{index}",
                customer_id=random.choice(tuple(CUSTOMERS)),
                metric_id="api_calls",
                quantity="1",
                event_time=to_timestamp(clock.now()),
            )
            for index in range(size)
        ]
        await call("EvaluateUsageBatch", alerts.EvaluateUsageBatchRequest(batch=UsageBatch(events=events)))
