"""Alerts on invoices: one invoice's total, and a calendar month's, through the API to the notification."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    billing_period_pb2,
    condition_pb2,
    customer_alert_pb2,
    customer_pb2,
    filter_pb2,
    invoice_pb2,
    threshold_pb2,
)
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import ALL_CUSTOMERS, BOTH, Caller, beside

ISSUED, PAID, VOID = (
    invoice_pb2.INVOICE_STATUS_ISSUED,
    invoice_pb2.INVOICE_STATUS_PAID,
    invoice_pb2.INVOICE_STATUS_VOID,
)
IN_ALARM, OK = customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM, customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK
MARCH = datetime(2026, 3, 20, tzinfo=UTC)  # the clock stands at noon of 15 March


pytestmark = shares_server


async def post(
    caller: Caller,
    invoice_id: str,
    total: str,
    *,
    customer: str = "acme",
    type: str = "",
    status: invoice_pb2.InvoiceStatus.ValueType = ISSUED,
    currency: str = "USD",
    end: datetime = MARCH,
    contract: dict[str, str] | None = None,
    as_of: datetime | None = None,
) -> None:
    """Posts an invoice."""
    invoice = invoice_pb2.Invoice(
        invoice_id=invoice_id,
        customer_id=customer,
        type=type,
        status=status,
        currency=currency,
        total=total,
        period_end_time=to_timestamp(end),
        contract_custom_fields=contract or {},
        as_of_time=to_timestamp(as_of or caller.clock.now()),
    )
    await caller.accounts.PutInvoice(account_service_pb2.PutInvoiceRequest(invoice=invoice), metadata=caller.metadata)


def single(*values: str, types: tuple[str, ...] = (), contract: tuple[str, str] | None = None) -> alert_pb2.Alert:
    """An alert of invoice_total_reached that notifies of REACHED and RESOLVED."""
    condition = condition_pb2.InvoiceTotalReachedCondition(invoice_types_filter=types)
    if contract:
        condition.custom_field_filters.add(
            entity=filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT, key=contract[0], value=contract[1]
        )
    thresholds = [threshold_pb2.Threshold(value=value, notify_on=BOTH) for value in values]
    return alert_pb2.Alert(
        display_name="invoice", scope=ALL_CUSTOMERS, invoice_total_reached=condition, thresholds=thresholds
    )


def monthly(*values: str, currency: str = "", contract: tuple[str, str] | None = None) -> alert_pb2.Alert:
    """An alert of monthly_invoice_total_spend_threshold_reached that notifies of REACHED and RESOLVED."""
    condition = condition_pb2.MonthlyInvoiceTotalSpendThresholdReachedCondition(currency=currency)
    if contract:
        condition.custom_field_filters.add(
            entity=filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT, key=contract[0], value=contract[1]
        )
    return alert_pb2.Alert(
        display_name="month",
        scope=ALL_CUSTOMERS,
        monthly_invoice_total_spend_threshold_reached=condition,
        thresholds=[threshold_pb2.Threshold(value=value, notify_on=BOTH) for value in values],
    )


async def notified(caller: Caller) -> list[tuple[str, str, str, str]]:
    """The transitions of all notifications, in order: kind, level, value before and after."""
    return [crossing[:4] for one in await caller.notifications() for crossing in one.transitions]


@pytest.mark.parametrize(("total", "reached"), [("99.99", False), ("100", True), ("100.01", True)])
async def test_a_threshold_is_reached_at_the_invoices_total_and_above(
    caller: Caller, total: str, reached: bool
) -> None:
    alert = await caller.create(single("100"))
    await post(caller, "i-1", total)
    assert await notified(caller) == ([("REACHED", "100", "0", total)] if reached else [])
    state = await caller.state(alert.alert_id)
    assert state.status == (IN_ALARM if reached else OK)
    (shown,) = state.gauges
    assert (shown.gauge.invoices.invoice_id, shown.gauge.invoices.currency) == ("i-1", "USD")
    assert shown.gauge.value == total
    assert not shown.gauge.HasField("billing_period")


async def test_each_invoice_has_its_own_gauge_and_notifies_once(caller: Caller) -> None:
    await caller.create(single("100"))
    await post(caller, "i-1", "150")
    await post(caller, "i-2", "60")
    await post(caller, "i-1", "150")
    await post(caller, "i-1", "170", status=PAID)
    await post(caller, "i-2", "100")
    notifications = await caller.notifications()
    assert sorted(one.body["data"]["gauge"]["invoice_id"] for one in notifications) == ["i-1", "i-2"]
    assert await notified(caller) in (
        [("REACHED", "100", "0", "150"), ("REACHED", "100", "60", "100")],
        [("REACHED", "100", "60", "100"), ("REACHED", "100", "0", "150")],
    )


async def test_a_threshold_resolves_when_the_invoice_is_lowered_or_voided(caller: Caller) -> None:
    alert = await caller.create(single("100"))
    await post(caller, "i-1", "150")
    await post(caller, "i-1", "80")
    await post(caller, "i-1", "120")
    await post(caller, "i-1", "120", status=VOID)
    assert [row[:2] for row in await notified(caller)] == [
        ("REACHED", "100"),
        ("RESOLVED", "100"),
        ("REACHED", "100"),
        ("RESOLVED", "100"),
    ]
    assert [one.sequence for one in await caller.notifications()] == [1, 2, 3, 4]
    assert (await caller.state(alert.alert_id)).status == OK


async def test_an_older_put_of_an_invoice_does_not_notify(caller: Caller, clock: ManualClock) -> None:
    await caller.create(single("100"))
    await post(caller, "i-1", "50")
    await post(caller, "i-1", "500", as_of=clock.now() - timedelta(hours=1))
    assert await notified(caller) == []


async def test_filters_of_type_contract_and_currency_select_invoices(caller: Caller) -> None:
    alert = await caller.create(single("100", types=("SCHEDULED", "USAGE"), contract=("region", "eu")))
    await post(caller, "wrong-type", "500", type="CORRECTION", contract={"region": "eu"})
    await post(caller, "no-type", "500", contract={"region": "eu"})
    await post(caller, "wrong-contract", "500", type="USAGE", contract={"region": "us"})
    await post(caller, "wrong-currency", "500", type="USAGE", contract={"region": "eu"}, currency="EUR")
    assert (await caller.state(alert.alert_id)).no_data
    await post(caller, "right", "500", type="USAGE", contract={"region": "eu", "more": "x"})
    (notification,) = await caller.notifications()
    assert notification.body["data"]["gauge"] == {"customer_id": "acme", "currency": "USD", "invoice_id": "right"}


async def test_a_threshold_resolves_when_the_invoice_leaves_the_selection(caller: Caller) -> None:
    await caller.create(single("100", types=("USAGE",)))
    await post(caller, "i-1", "500", type="USAGE")
    await post(caller, "i-1", "500", type="SCHEDULED")
    assert [row[:2] for row in await notified(caller)] == [("REACHED", "100"), ("RESOLVED", "100")]


async def test_a_month_sums_invoices_that_end_in_it_except_voided_ones(caller: Caller) -> None:
    alert = await caller.create(monthly("100", "200"))
    await post(caller, "i-1", "60")
    await post(caller, "april", "1000", end=datetime(2026, 4, 2, tzinfo=UTC), customer="other")
    await post(caller, "i-2", "40")
    await post(caller, "i-3", "150", currency="EUR")
    await post(caller, "i-4", "110.5")
    await post(caller, "i-1", "60", status=VOID)
    assert [row for row in await notified(caller) if row[3] != "1000"] == [
        ("REACHED", "100", "60", "100"),
        ("REACHED", "200", "100", "210.5"),
        ("RESOLVED", "200", "210.5", "150.5"),
    ]
    (shown,) = (await caller.state(alert.alert_id)).gauges
    assert shown.gauge.value == "150.5"
    assert shown.gauge.billing_period.start_time.ToDatetime(UTC) == datetime(2026, 3, 1, tzinfo=UTC)
    assert shown.gauge.invoices.invoice_id == ""


@pytest.mark.parametrize("alert_first", [True, False])
async def test_a_month_sums_the_invoices_of_the_contracts_that_pass_the_filters(
    caller: Caller, alert_first: bool
) -> None:
    eu, us = {"region": "eu", "tier": "1"}, {"region": "us"}
    wanted = monthly("100", currency="USD", contract=("region", "eu"))
    if alert_first:
        alert = await caller.create(wanted)
    await post(caller, "i-1", "60", contract=eu)
    await post(caller, "i-2", "500", contract=us)
    await post(caller, "i-3", "500")
    await post(caller, "other", "500", customer="other", contract=us)
    if not alert_first:
        alert = await caller.create(wanted)
    assert alert.monthly_invoice_total_spend_threshold_reached == wanted.monthly_invoice_total_spend_threshold_reached
    assert (await caller.state(alert.alert_id)).gauges[0].gauge.value == "60"
    assert (await caller.state(alert.alert_id, "other")).no_data
    await post(caller, "i-2", "40", contract=eu)
    assert await notified(caller) == [("REACHED", "100", "60", "100")]
    # An invoice whose contract's fields change leaves the total.
    await post(caller, "i-1", "60", contract={"region": "asia"})
    assert (await notified(caller))[1:] == [("RESOLVED", "100", "100", "40")]
    await post(caller, "i-2", "40", contract={})
    assert (await caller.state(alert.alert_id)).gauges[0].gauge.value == "0"


async def test_the_month_is_that_of_the_customers_time_zone(caller: Caller) -> None:
    cycle = billing_period_pb2.BillingCycle(
        anchor_time=to_timestamp(datetime(2026, 1, 1, tzinfo=UTC)),
        cadence=billing_period_pb2.CADENCE_MONTH,
        interval_count=1,
        time_zone="America/New_York",
    )
    await caller.put_customer(customer_pb2.Customer(customer_id="acme", billing_cycle=cycle))
    await caller.create(monthly("100"))
    # Midnight of 1 April in New York is the end of March; an hour later it is April.
    await post(caller, "i-1", "60", end=datetime(2026, 4, 1, 4, tzinfo=UTC))
    await post(caller, "i-2", "60", end=datetime(2026, 4, 1, 5, tzinfo=UTC))
    assert await notified(caller) == []
    await post(caller, "i-3", "40", end=datetime(2026, 3, 2, tzinfo=UTC))
    (notification,) = await caller.notifications()
    assert notification.body["data"]["gauge"]["period"] == {
        "start_time": "2026-03-01T05:00:00.000000Z",
        "end_time": "2026-04-01T04:00:00.000000Z",
    }


async def test_an_invoice_moved_to_another_month_counts_there_only(caller: Caller) -> None:
    await caller.create(monthly("100"))
    await post(caller, "i-1", "120")
    await post(caller, "i-1", "120", end=datetime(2026, 2, 10, tzinfo=UTC))
    rows = [(row[0], row[3]) for row in await notified(caller)]
    assert sorted(rows) == [("REACHED", "120"), ("REACHED", "120"), ("RESOLVED", "0")]
    assert [one.body["data"]["late"] for one in await caller.notifications()].count(True) == 1


@pytest.mark.parametrize("evaluate", [True, False])
async def test_earlier_invoices_notify_unless_evaluate_on_create_is_off(caller: Caller, evaluate: bool) -> None:
    await post(caller, "i-1", "150")
    await post(caller, "i-2", "50")
    await post(caller, "long ago", "500", end=datetime(2025, 11, 1, tzinfo=UTC))
    both = [
        await caller.create(single("100"), evaluate=evaluate),
        await caller.create(monthly("180"), evaluate=evaluate),
    ]
    expected = [("REACHED", "100", "0", "150"), ("REACHED", "180", "0", "200")] if evaluate else []
    assert sorted(await notified(caller)) == expected
    for alert in both:
        assert (await caller.state(alert.alert_id)).status == IN_ALARM
    # A threshold reached silently resolves silently; a later transition notifies.
    await post(caller, "i-1", "50")
    resolved = [("RESOLVED", "100", "150", "50"), ("RESOLVED", "180", "200", "100")] if evaluate else []
    assert sorted(await notified(caller)) == sorted([*expected, *resolved])
    await post(caller, "i-2", "130")
    assert len(await notified(caller)) == len(expected) + len(resolved) + 2


async def test_two_servers_record_a_transition_of_a_month_once(caller: Caller) -> None:
    await caller.create(monthly("100"))
    async with beside(caller) as other:
        posts = [post(one, f"i-{number}", "10") for number in range(10) for one in (caller, other)]
        posts += [post(one, f"j-{number}", "10") for number in range(5) for one in (caller, other)]
        await asyncio.gather(*posts)
    (crossing,) = await notified(caller)
    assert crossing[:2] == ("REACHED", "100")
    assert crossing == ("REACHED", "100", "90", "100")


async def test_usage_does_not_move_a_gauge_of_invoices(caller: Caller) -> None:
    await caller.create(monthly("100"))
    await caller.send(caller.event("e1", "1", cost="500", currency="USD"))
    assert await notified(caller) == []


async def test_an_invalid_filter_is_named(caller: Caller) -> None:
    alert = single("100")
    alert.invoice_total_reached.custom_field_filters.add(entity=filter_pb2.CUSTOM_FIELD_ENTITY_COMMIT, key="k")
    alert.invoice_total_reached.invoice_types_filter.append("")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await caller.create(alert)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "invoice_types_filter[0]" in (raised.value.details() or "")


async def test_an_alert_in_a_currency_without_invoices_has_no_data(caller: Caller) -> None:
    for alert in (single("10"), monthly("10")):
        getattr(alert, alert.WhichOneof("condition") or "").currency = "EUR"
        created = await caller.create(alert)
        await post(caller, "i1", "50")
        assert (await caller.state(created.alert_id)).no_data
    await post(caller, "i2", "50", currency="EUR")
    assert [one[:2] for one in await notified(caller)] == [("REACHED", "10")] * 2
