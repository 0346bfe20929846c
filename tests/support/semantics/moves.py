"""How the gauge of a row gets a value, through the API: by usage, by facts, or by time."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from generated.tidemark.v1 import account_service_pb2, balance_pb2, invoice_pb2
from server.calls.validation import to_timestamp
from tests.support.balances.holder import COMMIT, LICENSE
from tests.support.semantics.stage import CUSTOMER, SUBSCRIPTION, Stage

# Takes the gauge from the first value to the second.
Move = Callable[[Stage, Decimal, Decimal], Awaitable[None]]
Given = Callable[[Stage], Awaitable[None]]

_MICROSECONDS_A_DAY = Decimal(86_400_000_000)


def costs(**properties: str) -> Move:
    """An event whose cost is the difference."""

    async def move(stage: Stage, before: Decimal, to: Decimal) -> None:
        await _send(stage, cost=to - before, properties=properties)

    return move


def uses(metric: str) -> Move:
    """An event whose quantity is the difference."""

    async def move(stage: Stage, before: Decimal, to: Decimal) -> None:
        await _send(stage, quantity=to - before, metric=metric)

    return move


def draws(granted: str = "100", **properties: str) -> Move:
    """A cost that is drawn from what remains; a negative one, a correction, gives it back.

    granted: the amount that is 100 %; the default is right where the value is an amount.
    """

    async def move(stage: Stage, before: Decimal, to: Decimal) -> None:
        await _send(stage, cost=(before - to) * Decimal(granted) / 100, properties=properties)

    return move


def draws_units(metric: str) -> Move:
    """Usage of the metric that is drawn from what remains."""

    async def move(stage: Stage, before: Decimal, to: Decimal) -> None:
        await _send(stage, quantity=before - to, metric=metric)

    return move


def tops_up(balance_id: str) -> Move:
    """A grant of the difference."""

    async def move(stage: Stage, before: Decimal, to: Decimal) -> None:
        await stage.holder.adjust(balance_id, str(to - before), f"top-up {next(stage.numbers)}")

    return move


def uses_licence(granted: str, metric: str) -> Move:
    """Usage of the licence's metric; the value is the percentage of what was granted."""

    async def move(stage: Stage, before: Decimal, to: Decimal) -> None:
        await _send(stage, quantity=(to - before) * Decimal(granted) / 100, metric=metric)

    return move


def invoices(invoice_id: str, beside: str = "0", **contract: str) -> Move:
    """The invoice, posted (again) with the total that gives the value; other invoices add `beside` to it."""

    async def move(stage: Stage, before: Decimal, to: Decimal) -> None:
        await post(stage, f"{stage.invoice_prefix}-{invoice_id}", str(to - Decimal(beside)), contract=contract)

    return move


def passes(put: Given) -> Move:
    """Advances the clock until so many days are left; otherwise `put` puts the fact again with a later end."""

    async def move(stage: Stage, before: Decimal, to: Decimal) -> None:
        left = timedelta(microseconds=int((to * _MICROSECONDS_A_DAY).to_integral_value()))
        if stage.ends - left >= stage.now:
            await stage.advance_to(stage.ends - left)
        else:
            stage.ends = stage.now + left
            await put(stage)

    return move


async def next_period(stage: Stage) -> None:
    """The customer's billing period ends."""
    await stage.advance_to(await stage.period_end())


async def next_month(stage: Stage) -> None:
    """The calendar month ends; the next one has invoices of its own."""
    await stage.advance_to(datetime(2026, 4, 1, tzinfo=stage.now.tzinfo))
    stage.invoice_prefix = "april"
    await post(stage, "april-base", "50")


async def next_segment(stage: Stage) -> None:
    """A segment ends, and the next one begins."""
    await stage.advance_to(stage.ends)


def holds(balance_id: str, amount: str, kind: balance_pb2.BalanceKind.ValueType = COMMIT, **fields: Any) -> Given:
    """A balance that usage draws on."""

    async def put(stage: Stage) -> None:
        await stage.holder.put(balance_id, amount, kind=kind, **fields)

    return put


def holds_segment(kind: balance_pb2.BalanceKind.ValueType) -> Given:
    """A balance of one segment with an end."""

    async def put(stage: Stage) -> None:
        since = stage.ends - timedelta(days=60)
        await stage.holder.put("b1", kind=kind, spans=[("100", since, stage.ends)])

    return put


def holds_licence(amount: str, metric: str) -> Given:
    """An allotment of licences, and the one that follows it."""

    async def put(stage: Stage) -> None:
        since, ends = stage.ends - timedelta(days=30), stage.ends
        spans = [(amount, since, ends), (amount, ends, ends + timedelta(days=30))]
        await stage.holder.put("l1", kind=LICENSE, license_type="pro", metric=metric, spans=spans)

    return put


async def on_a_plan(stage: Stage) -> None:
    """The customer's plan, with its end."""
    await stage.holder.plan("pro", end=stage.ends)


def under_contract(**fields: str) -> Given:
    """The custom fields of the subscription, which otherwise stays as it is."""

    async def put(stage: Stage) -> None:
        accounts, metadata = stage.caller.accounts, stage.caller.metadata
        request = account_service_pb2.GetSubscriptionRequest(customer_id=CUSTOMER, subscription_id=SUBSCRIPTION)
        known = (await accounts.GetSubscription(request, metadata=metadata)).subscription
        known.custom_fields.update(fields)
        known.ClearField("as_of_time")
        await stage.caller.put_subscription(known)

    return put


def owes(invoice_id: str, total: str, *, void: bool = False, **contract: str) -> Given:
    """An invoice that exists before the alert. contract: the custom fields of its contract."""

    async def put(stage: Stage) -> None:
        await post(stage, invoice_id, total, void=void, contract=contract)

    return put


def spent(cost: str, **properties: str) -> Given:
    """A cost that is counted before the alert."""

    async def put(stage: Stage) -> None:
        await _send(stage, cost=Decimal(cost), properties=properties)

    return put


async def post(
    stage: Stage, invoice_id: str, total: str, *, void: bool = False, contract: Mapping[str, str] | None = None
) -> None:
    """Posts an invoice of the current month."""
    invoice = invoice_pb2.Invoice(
        invoice_id=invoice_id,
        customer_id=CUSTOMER,
        status=invoice_pb2.INVOICE_STATUS_VOID if void else invoice_pb2.INVOICE_STATUS_ISSUED,
        currency="USD",
        total=total,
        # The period ends a microsecond from now, so its last microsecond is in the current month.
        period_end_time=to_timestamp(stage.now + timedelta(microseconds=1)),
        contract_custom_fields=contract or {},
    )
    request = account_service_pb2.PutInvoiceRequest(invoice=invoice)
    await stage.caller.accounts.PutInvoice(request, metadata=stage.caller.metadata)


async def _send(
    stage: Stage,
    *,
    cost: Decimal | None = None,
    quantity: Decimal = Decimal(1),
    metric: str = "calls",
    properties: Mapping[str, str] | None = None,
) -> None:
    event = stage.caller.event(
        f"e{next(stage.numbers)}",
        f"{quantity:f}",
        CUSTOMER,
        metric=metric,
        cost="" if cost is None else f"{cost:f}",
        subscription=SUBSCRIPTION,
    )
    event.properties.update(properties or {})
    answer = await stage.caller.send(event)
    assert answer.accepted == 1, answer
