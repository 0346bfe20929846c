"""Facts with validate_only: the answer of the change, and nothing of it in the database or in the rules of ingest."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import (
    access_pb2,
    balance_pb2,
    customer_pb2,
    invoice_pb2,
    limit_pb2,
    metric_pb2,
    plan_pb2,
    scope_pb2,
    subscription_pb2,
    threshold_pb2,
)
from generated.tidemark.v1 import account_service_pb2 as messages
from server.calls.validation import to_timestamp
from tests.support.balances.holder import Holder, alert
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, ShortTransition, on_plan, shortened, usage_alert

pytestmark = shares_server

Request = Callable[[Caller], tuple[str, Any]]

TABLES = (
    *("customer", "subscription", "metric", "plan", "usage_limit", "invoice", "wallet", "balance", "balance_segment"),
    *("balance_entry", "balance_adjustment", "gauge", "alert_state", "notification", "outbox"),
)


def customer(_: Caller) -> tuple[str, Any]:
    sent = customer_pb2.Customer(customer_id="acme", display_name="Acme", plan_id="gold")
    return "PutCustomer", messages.PutCustomerRequest(customer=sent)


def subscription(_: Caller) -> tuple[str, Any]:
    sent = subscription_pb2.Subscription(customer_id="new", subscription_id="pro", display_name="Pro")
    return "PutSubscription", messages.PutSubscriptionRequest(subscription=sent)


def metric(_: Caller) -> tuple[str, Any]:
    sent = metric_pb2.Metric(metric_id="seats", custom_fields={"unit": "seat"})
    return "PutMetric", messages.PutMetricRequest(metric=sent)


def plan(_: Caller) -> tuple[str, Any]:
    return "PutPlan", messages.PutPlanRequest(plan=plan_pb2.Plan(plan_id="gold", display_name="Gold"))


def limit(_: Caller) -> tuple[str, Any]:
    sent = limit_pb2.Limit(
        limit_id="l1",
        display_name="Calls of Acme",
        customer=scope_pb2.CustomerScope(customer_id="acme"),
        quantity=access_pb2.QuantityAccess(metric_id="calls"),
        amount="10",
    )
    return "PutLimit", messages.PutLimitRequest(limit=sent)


def invoice(caller: Caller) -> tuple[str, Any]:
    sent = invoice_pb2.Invoice(
        customer_id="new",
        invoice_id="i1",
        display_name="March",
        status=invoice_pb2.INVOICE_STATUS_DRAFT,
        currency="USD",
        total="900",
        period_end_time=to_timestamp(caller.clock.now()),
    )
    return "PutInvoice", messages.PutInvoiceRequest(invoice=sent)


def balance(caller: Caller) -> tuple[str, Any]:
    segment = balance_pb2.BalanceSegment(amount="1", start_time=to_timestamp(caller.clock.now()))
    sent = balance_pb2.Balance(
        customer_id="new",
        balance_id="b1",
        display_name="First commit",
        kind=balance_pb2.BALANCE_KIND_COMMIT,
        spend=access_pb2.SpendAccess(currency="USD"),
        draw_down=True,
        segments=[segment],
    )
    return "PutBalance", messages.PutBalanceRequest(balance=sent)


def adjustment(_: Caller) -> tuple[str, Any]:
    sent = messages.AdjustBalanceRequest(customer_id="acme", balance_id="old", adjustment_id="a1", amount="-95")
    return "AdjustBalance", sent


def voiding(_: Caller) -> tuple[str, Any]:
    return "VoidBalance", messages.VoidBalanceRequest(customer_id="acme", balance_id="old")


async def stored(caller: Caller) -> dict[str, list[str]]:
    """Every row of the organization, and its epoch."""
    found = {"epoch": ["epoch"]}
    for table in TABLES:
        rows = await caller.rows(
            f"SELECT t::text FROM {table} t WHERE organization_id = %(organization_id)s ORDER BY 1"
        )
        found[table] = [row[0] for row in rows]
    [[epoch]] = await caller.rows("SELECT epoch FROM organization WHERE organization_id = %(organization_id)s")
    return found | {"epoch": [str(epoch)]}


@pytest.mark.parametrize(
    "made",
    [customer, subscription, metric, plan, limit, invoice, balance, adjustment, voiding],
    ids=lambda one: one.__name__,
)
async def test_a_validated_change_gets_its_answer_and_changes_nothing(caller: Caller, made: Request) -> None:
    await Holder(caller).put("old", "100", draw=False)
    low: dict[str, Any] = {"low_remaining_commit_balance_reached": {"spend": {"currency": "USD"}}}
    await caller.create(alert("10", **low))
    await caller.create(alert("500", monthly_invoice_total_spend_threshold_reached={"currency": "USD"}))
    percent = [threshold_pb2.Threshold(percent_of_limit="50")]
    await caller.create(usage_alert(thresholds=percent))
    await caller.send(caller.event("e1", "7"))
    method, request = made(caller)
    call = getattr(caller.accounts, method)
    before = await stored(caller)
    validated = type(request)()
    validated.CopyFrom(request)
    validated.validate_only = True
    answer = await call(validated, metadata=caller.metadata)
    assert await call(validated, metadata=caller.metadata) == answer
    assert await stored(caller) == before
    assert await call(request, metadata=caller.metadata) == answer
    assert await stored(caller) != before


@pytest.mark.parametrize("made", [customer, subscription, metric, plan, limit], ids=lambda one: one.__name__)
async def test_ingest_evaluates_an_alert_that_is_created_after_a_validated_change(
    caller: Caller, made: Request
) -> None:
    """The new alert gets an epoch that the validated change had before it was rolled back."""
    await caller.create(usage_alert("1000"))
    await caller.send(caller.event("e1", "7"))
    method, request = made(caller)
    request.validate_only = True
    await getattr(caller.accounts, method)(request, metadata=caller.metadata)
    await caller.create(usage_alert("10"))
    answer = await caller.send(caller.event("e2", "7"))
    assert [one.level for one in shortened(answer.transitions)] == ["10"]


async def test_ingest_does_not_know_a_plan_and_a_customer_that_were_only_validated(caller: Caller) -> None:
    await caller.create(usage_alert("10", scope=on_plan("gold")))
    sent = customer_pb2.Customer(customer_id="acme", plan_id="gold")
    for _ in range(2):
        request = messages.PutCustomerRequest(customer=sent, validate_only=True)
        assert (await caller.accounts.PutCustomer(request, metadata=caller.metadata)).customer.plan_id == "gold"
        assert not (await caller.send(caller.event("e1", "15"))).transitions
    await caller.put_customer(sent)
    answer = await caller.send(caller.event("e2", "1"))
    reached = [one.transitions for one in await caller.notifications()]
    assert reached == [[ShortTransition("REACHED", "10", "15", "15", "")]]
    assert not shortened(answer.transitions)


async def test_a_validated_balance_is_not_drawn_on(caller: Caller) -> None:
    method, request = balance(caller)
    request.validate_only = True
    await getattr(caller.accounts, method)(request, metadata=caller.metadata)
    await caller.send(caller.event("e1", "1", "new", cost="5"))
    assert await Holder(caller, "new").remaining() == {}
    assert await Holder(caller, "new").overage() == {}


async def test_a_validated_change_is_refused_for_the_same_reasons(caller: Caller) -> None:
    await Holder(caller).put("old", "100")
    request = messages.AdjustBalanceRequest(
        customer_id="acme", balance_id="old", adjustment_id="a1", amount="1", segment_number=2, validate_only=True
    )
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await caller.accounts.AdjustBalance(request, metadata=caller.metadata)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_lists_count_what_their_filters_select(caller: Caller) -> None:
    holder = Holder(caller)
    for number in range(3):
        await holder.put(f"b{number}", "10")
        await caller.put_customer(customer_pb2.Customer(customer_id=f"c{number}", plan_id="gold" if number else ""))
        await caller.put_subscription(subscription_pb2.Subscription(customer_id="acme", subscription_id=f"s{number}"))
        await caller.put_metric(f"m{number}", metric_pb2.AGGREGATION_SUM)
    await holder.void("b0")
    await caller.send(caller.event("e1", cost="50", metric="m0"))
    accounts = caller.accounts
    total: dict[str, Any] = {"page_size": 1, "include_total_size": True}
    calls: list[tuple[Any, Any, int]] = [
        (accounts.ListCustomers, messages.ListCustomersRequest(**total), 4),
        (accounts.ListCustomers, messages.ListCustomersRequest(plan_id="gold", **total), 2),
        (accounts.ListSubscriptions, messages.ListSubscriptionsRequest(customer_id="acme", **total), 3),
        (accounts.ListMetrics, messages.ListMetricsRequest(**total), 3),
        (accounts.ListPlans, messages.ListPlansRequest(**total), 0),
        (accounts.ListLimits, messages.ListLimitsRequest(**total), 0),
        (accounts.ListInvoices, messages.ListInvoicesRequest(**total), 0),
        (accounts.ListBalances, messages.ListBalancesRequest(**total), 2),
        (accounts.ListBalances, messages.ListBalancesRequest(include_voided=True, **total), 3),
        (accounts.ListBalanceEntries, messages.ListBalanceEntriesRequest(customer_id="acme", **total), 6),
        (accounts.ListOverages, messages.ListOveragesRequest(customer_id="acme", **total), 1),
    ]
    for call, request, expected in calls:
        answer = await call(request, metadata=caller.metadata)
        assert answer.HasField("total_size"), request
        assert answer.total_size == expected, request
        request.include_total_size = False
        assert not (await call(request, metadata=caller.metadata)).HasField("total_size")
