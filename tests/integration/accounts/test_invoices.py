"""Invoices over a real channel: puts, superseded puts, lists in pages, and the isolation of organizations."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import grpc
import pytest

from evaluator.invoices import InvoiceStatus
from generated.tidemark.v1 import account_service_pb2 as messages
from generated.tidemark.v1 import account_service_pb2_grpc, invoice_pb2
from runtime.clock import ManualClock
from server.calls.validation import to_datetime, to_timestamp
from store.accounts import invoices
from store.accounts.invoices import InvoiceFact, StoredInvoice
from store.accounts.puts import Put
from store.balances import wallets
from store.identity import keys, organizations
from store.postgres.database import Database
from tests.support.facts.refusals import assert_refused, assert_violations
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server


Stub = account_service_pb2_grpc.AccountServiceStub

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)  # where the clock stands
HOUR = timedelta(hours=1)
APRIL = to_timestamp(datetime(2026, 4, 1, tzinfo=UTC))


def invoice(
    invoice_id: str = "i1", customer_id: str = "acme", total: str = "100", **fields: object
) -> invoice_pb2.Invoice:
    """A valid invoice."""
    sent = invoice_pb2.Invoice(
        invoice_id=invoice_id,
        customer_id=customer_id,
        status=invoice_pb2.INVOICE_STATUS_DRAFT,
        currency="USD",
        total=total,
        period_end_time=APRIL,
    )
    sent.MergeFrom(invoice_pb2.Invoice(**fields))  # type: ignore[arg-type]  # the caller names fields of it
    return sent


async def put(
    accounts: Stub, sent: invoice_pb2.Invoice, as_of: datetime | None = None
) -> messages.PutInvoiceResponse:
    if as_of is not None:
        sent.as_of_time.CopyFrom(to_timestamp(as_of))
    return await accounts.PutInvoice(messages.PutInvoiceRequest(invoice=sent))


async def get(accounts: Stub, invoice_id: str = "i1", customer_id: str = "acme") -> invoice_pb2.Invoice:
    request = messages.GetInvoiceRequest(customer_id=customer_id, invoice_id=invoice_id)
    return (await accounts.GetInvoice(request)).invoice


async def test_every_field_of_an_invoice_comes_back(accounts: Stub) -> None:
    sent = invoice(
        type="SCHEDULED",
        total="-12345678901234567890.123456789012345678",
        period_start_time=to_timestamp(datetime(2026, 3, 1, tzinfo=UTC)),
        custom_fields={"ä": "ö", "empty": ""},
        contract_custom_fields={"tier": "gold"},
        as_of_time=to_timestamp(NOW - HOUR),
    )
    answer = await put(accounts, sent)
    assert not answer.superseded
    assert await get(accounts) == answer.invoice
    kept = answer.invoice
    assert to_datetime(kept.create_time) == to_datetime(kept.update_time) == NOW
    for field in ("create_time", "update_time"):
        kept.ClearField(field)
    assert kept == sent


async def test_amounts_are_shown_in_their_shortest_form(accounts: Stub) -> None:
    assert (await put(accounts, invoice(total="007.50"))).invoice.total == "7.5"
    assert (await put(accounts, invoice(total="-0.00"))).invoice.total == "0"


@own_server
async def test_a_put_replaces_the_whole_invoice(accounts: Stub, clock: ManualClock) -> None:
    await put(accounts, invoice(type="USAGE", custom_fields={"a": "b"}))
    clock.advance(HOUR)
    paid = invoice_pb2.INVOICE_STATUS_PAID
    kept = (await put(accounts, invoice(total="90", status=paid))).invoice
    assert (kept.total, kept.status, kept.type, dict(kept.custom_fields)) == ("90", paid, "", {})
    assert (to_datetime(kept.create_time), to_datetime(kept.update_time)) == (NOW, NOW + HOUR)


@own_server
async def test_a_repeated_put_changes_only_the_as_of_time(accounts: Stub, clock: ManualClock) -> None:
    await put(accounts, invoice(total="1.50"))
    clock.advance(HOUR)
    again = await put(accounts, invoice(total="1.5"))
    assert not again.superseded
    assert to_datetime(again.invoice.update_time) == NOW
    assert to_datetime(again.invoice.as_of_time) == NOW + HOUR


async def test_an_older_put_is_superseded_and_returns_the_newer_invoice(accounts: Stub) -> None:
    newer = await put(accounts, invoice(total="2"), NOW)
    older = await put(accounts, invoice(total="1"), NOW - HOUR)
    assert (older.invoice, older.superseded) == (newer.invoice, True)
    equal = await put(accounts, invoice(total="3"), NOW)
    assert (equal.invoice.total, equal.superseded) == ("3", False)


async def test_a_voided_invoice_can_be_put_with_another_status(accounts: Stub) -> None:
    await put(accounts, invoice(status=invoice_pb2.INVOICE_STATUS_VOID))
    assert (await get(accounts)).status == invoice_pb2.INVOICE_STATUS_VOID
    await put(accounts, invoice(status=invoice_pb2.INVOICE_STATUS_ISSUED))
    assert (await get(accounts)).status == invoice_pb2.INVOICE_STATUS_ISSUED


async def test_concurrent_puts_keep_the_newest_invoice(accounts: Stub) -> None:
    ages = [3, 9, 1, 7, 5, 8, 2, 6, 4, 10]
    await asyncio.gather(*(put(accounts, invoice(total=str(age)), NOW - age * HOUR) for age in ages))
    assert (await get(accounts)).total == "1"


async def test_a_put_registers_an_unknown_customer_with_defaults(accounts: Stub) -> None:
    await put(accounts, invoice(customer_id="new"))
    customer = (await accounts.GetCustomer(messages.GetCustomerRequest(customer_id="new"))).customer
    assert customer.currency == "USD"
    assert not customer.HasField("as_of_time")


async def test_two_customers_can_have_the_same_invoice_id(accounts: Stub) -> None:
    await put(accounts, invoice(customer_id="a", total="1"))
    await put(accounts, invoice(customer_id="b", total="2"))
    assert [(await get(accounts, customer_id=name)).total for name in "ab"] == ["1", "2"]


async def test_an_unknown_invoice_is_not_found(accounts: Stub) -> None:
    await put(accounts, invoice())
    for customer_id, invoice_id in (("acme", "i2"), ("other", "i1")):
        await assert_refused(get(accounts, invoice_id, customer_id), grpc.StatusCode.NOT_FOUND, "INVOICE_NOT_FOUND")


async def test_all_violations_of_an_invoice_are_named_and_nothing_is_stored(accounts: Stub) -> None:
    bad = invoice_pb2.Invoice(
        invoice_id="x" * 129,
        customer_id="new ",
        type="a\nb",
        status=99,  # type: ignore[arg-type]  # an unknown number
        currency="usd",
        total="1e3",
        period_start_time=APRIL,
        period_end_time=APRIL,
        custom_fields={"": "v", "k": "v" * 257},
        contract_custom_fields={str(number): "" for number in range(65)},
        as_of_time=to_timestamp(NOW + HOUR),
    )
    await assert_violations(
        put(accounts, bad),
        "invoice.customer_id",
        "invoice.invoice_id",
        "invoice.type",
        "invoice.status",
        "invoice.currency",
        "invoice.total",
        "invoice.period_end_time",
        "invoice.custom_fields",
        "invoice.custom_fields['k']",
        "invoice.contract_custom_fields",
        "invoice.as_of_time",
    )
    assert not (await accounts.ListCustomers(messages.ListCustomersRequest())).customers
    await assert_violations(
        accounts.PutInvoice(messages.PutInvoiceRequest()),
        "invoice.customer_id",
        "invoice.invoice_id",
        "invoice.status",
        "invoice.currency",
        "invoice.total",
        "invoice.period_end_time",
    )


async def test_violations_of_reads_and_lists_are_named(accounts: Stub) -> None:
    await assert_violations(accounts.GetInvoice(messages.GetInvoiceRequest()), "customer_id", "invoice_id")
    bad = messages.ListInvoicesRequest(
        page_size=-1,
        customer_id=" ",
        type="\0",
        statuses=[invoice_pb2.INVOICE_STATUS_PAID, invoice_pb2.INVOICE_STATUS_UNSPECIFIED],
    )
    await assert_violations(accounts.ListInvoices(bad), "customer_id", "type", "statuses[1]", "page_size")


async def ids(accounts: Stub, **filters: object) -> list[str]:
    """The ids of all pages; no page is longer than the page size."""
    found: list[str] = []
    token = ""
    while True:
        request = messages.ListInvoicesRequest(page_size=2, page_token=token, **filters)  # type: ignore[arg-type]
        page = await accounts.ListInvoices(request)
        assert len(page.invoices) <= 2
        found += [f"{item.customer_id}/{item.invoice_id}" for item in page.invoices]
        if not (token := page.next_page_token):
            return found


async def test_invoices_are_listed_in_byte_order_by_page_and_filter(accounts: Stub) -> None:
    draft, paid = invoice_pb2.INVOICE_STATUS_DRAFT, invoice_pb2.INVOICE_STATUS_PAID
    for number, name in enumerate(("B/1", "a/2", "a/10", "é/1", "a/1")):
        customer_id, invoice_id = name.split("/")
        status = paid if number % 2 else draft
        await put(accounts, invoice(invoice_id, customer_id, type="USAGE" if number else "", status=status))
    assert await ids(accounts) == ["B/1", "a/1", "a/10", "a/2", "é/1"]
    assert await ids(accounts, customer_id="a") == ["a/1", "a/10", "a/2"]
    assert await ids(accounts, type="USAGE") == ["a/1", "a/10", "a/2", "é/1"]
    assert await ids(accounts, statuses=[paid]) == ["a/2", "é/1"]
    assert await ids(accounts, statuses=[paid, draft, paid], customer_id="B") == ["B/1"]
    assert await ids(accounts, statuses=[invoice_pb2.INVOICE_STATUS_VOID]) == []


async def test_a_page_token_is_refused_by_another_list(accounts: Stub) -> None:
    for number in range(3):
        await put(accounts, invoice(f"i{number}"))
    token = (await accounts.ListInvoices(messages.ListInvoicesRequest(page_size=1))).next_page_token
    for call in (
        accounts.ListInvoices(messages.ListInvoicesRequest(page_token=token, customer_id="acme")),
        accounts.ListSubscriptions(messages.ListSubscriptionsRequest(page_token=token)),
    ):
        await assert_refused(call, grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_an_organization_sees_only_its_own_invoices(
    accounts: Stub, shared: Database, clock: ManualClock
) -> None:
    async with shared.transaction() as connection:
        acme = await keys.create_key(connection, "acme", clock.now())
        other = await keys.create_key(connection, "other", clock.now())
    as_acme, as_other = ((("authorization", f"Bearer {created.key}"),) for created in (acme, other))
    one = messages.PutInvoiceRequest(invoice=invoice(total="1"))
    await accounts.PutInvoice(one, metadata=as_acme)
    request = messages.GetInvoiceRequest(customer_id="acme", invoice_id="i1")
    call = accounts.GetInvoice(request, metadata=as_other)
    await assert_refused(call, grpc.StatusCode.NOT_FOUND, "INVOICE_NOT_FOUND")
    assert not (await accounts.ListInvoices(messages.ListInvoicesRequest(), metadata=as_other)).invoices
    one.invoice.total = "2"
    await accounts.PutInvoice(one, metadata=as_other)
    assert (await accounts.GetInvoice(request, metadata=as_acme)).invoice.total == "1"


def fact(total: str, as_of_time: datetime) -> InvoiceFact:
    return InvoiceFact(
        customer_id="acme",
        invoice_id="i1",
        invoice_type=None,
        status=InvoiceStatus.DRAFT,
        currency="USD",
        total=Decimal(total),
        period_start_time=None,
        period_end_time=NOW,
        custom_fields={},
        contract_custom_fields={},
        as_of_time=as_of_time,
    )


@pytest.mark.parametrize(
    ("total", "later", "superseded", "changed"),
    [
        ("1.0", HOUR, False, False),
        ("2", HOUR, False, True),
        ("2", timedelta(0), False, True),
        ("2", -HOUR, True, False),
    ],
)
async def test_a_put_returns_whether_the_invoice_was_created_changed_or_superseded(
    shared: Database, org: int, total: str, later: timedelta, superseded: bool, changed: bool
) -> None:
    async with shared.transaction() as connection:
        await wallets.lock(connection, org, ["acme"])
        first = await invoices.put(connection, org, fact("1", NOW), NOW)
        second = await invoices.put(connection, org, fact(total, NOW + later), NOW + HOUR)
    assert (first.superseded, first.changed) == (False, True)
    assert (second.superseded, second.changed) == (superseded, changed)
    async with shared.transaction() as connection:
        assert await invoices.get(connection, org, "acme", "i1") == second.stored


async def test_a_put_of_an_invoice_does_not_wait_for_ingest_and_keeps_the_epoch(
    accounts: Stub, shared: Database, org: int
) -> None:
    await put(accounts, invoice())
    async with shared.transaction() as ingest:
        before = await organizations.lock_shared(ingest, org)
        assert (await put(accounts, invoice(total="2"))).invoice.total == "2"
        assert await organizations.lock_shared(ingest, org) == before


async def test_a_wallet_is_locked_until_the_transaction_ends(shared: Database, org: int) -> None:
    async def read_and_put() -> Put[StoredInvoice]:
        async with shared.transaction() as connection:
            await wallets.lock(connection, org, ["b", "acme"])
            return await invoices.put(connection, org, fact("2", NOW), NOW)

    async with shared.transaction() as holder:
        await wallets.lock(holder, org, ["acme", "acme"])
        waiting = asyncio.create_task(read_and_put())
        async with shared.transaction() as connection:
            await wallets.lock(connection, org, ["c"])
        first = await invoices.put(holder, org, fact("1", NOW + HOUR), NOW)
        assert not waiting.done()
    assert await waiting == Put(first.stored, superseded=True, previous=first.stored)
