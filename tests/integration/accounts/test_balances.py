"""Balances over a real channel: put, adjust, void, and the ledger entry of each."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2_grpc,
    balance_entry_pb2,
    balance_pb2,
)
from generated.tidemark.v1 import (
    account_service_pb2 as messages,
)
from runtime.clock import ManualClock
from server.calls.validation import to_datetime, to_timestamp
from store.identity import keys
from store.postgres.database import Database
from tests.support.facts.refusals import assert_refused, assert_violations
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server


Stub = account_service_pb2_grpc.AccountServiceStub

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)  # where the clock stands
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

COMMIT = balance_pb2.BALANCE_KIND_COMMIT
GRANT = balance_pb2.BALANCE_KIND_CREDIT_GRANT
SEAT = balance_pb2.BALANCE_KIND_SEAT_CREDIT
LICENSE = balance_pb2.BALANCE_KIND_LICENSE_ALLOTMENT


def segment(amount: str, start: datetime = NOW - DAY, end: datetime | None = None) -> balance_pb2.BalanceSegment:
    sent = balance_pb2.BalanceSegment(amount=amount, start_time=to_timestamp(start))
    if end is not None:
        sent.end_time.CopyFrom(to_timestamp(end))
    return sent


def balance(*amounts: str | balance_pb2.BalanceSegment, **fields: Any) -> balance_pb2.Balance:
    """A valid balance: a commit in USD unless the fields say otherwise."""
    defaults: dict[str, Any] = {"balance_id": "b1", "customer_id": "acme", "kind": COMMIT}
    if "quantity" not in fields:
        defaults["spend"] = access_pb2.SpendAccess(currency="USD")
    segments = [segment(item) if isinstance(item, str) else item for item in amounts or ("100",)]
    return balance_pb2.Balance(**{**defaults, **fields}, segments=segments)


async def put(
    accounts: Stub, sent: balance_pb2.Balance, as_of: datetime | None = None
) -> messages.PutBalanceResponse:
    if as_of is not None:
        sent.as_of_time.CopyFrom(to_timestamp(as_of))
    return await accounts.PutBalance(messages.PutBalanceRequest(balance=sent))


async def get(accounts: Stub, balance_id: str = "b1", customer_id: str = "acme") -> balance_pb2.Balance:
    request = messages.GetBalanceRequest(customer_id=customer_id, balance_id=balance_id)
    return (await accounts.GetBalance(request)).balance


async def adjust(
    accounts: Stub, adjustment_id: str, amount: str, segment_number: int = 0, balance_id: str = "b1"
) -> messages.AdjustBalanceResponse:
    request = messages.AdjustBalanceRequest(
        customer_id="acme",
        balance_id=balance_id,
        adjustment_id=adjustment_id,
        amount=amount,
        segment_number=segment_number,
    )
    return await accounts.AdjustBalance(request)


async def void(accounts: Stub, balance_id: str = "b1") -> balance_pb2.Balance:
    request = messages.VoidBalanceRequest(customer_id="acme", balance_id=balance_id)
    return (await accounts.VoidBalance(request)).balance


async def ledger(accounts: Stub, balance_id: str = "") -> list[tuple[str, int, str, str, str, str]]:
    """All entries: balance, segment, type, amount, remaining, adjustment. Read page by page."""
    found: list[tuple[str, int, str, str, str, str]] = []
    token = ""
    while True:
        request = messages.ListBalanceEntriesRequest(
            customer_id="acme", balance_id=balance_id, page_size=2, page_token=token
        )
        page = await accounts.ListBalanceEntries(request)
        assert len(page.entries) <= 2
        for item in page.entries:
            kind = balance_entry_pb2.BalanceEntryType.Name(item.type).removeprefix("BALANCE_ENTRY_TYPE_")
            assert item.customer_id == "acme"
            row = (item.balance_id, item.segment_number, kind, item.amount, item.remaining, item.adjustment_id)
            found.append(row)
        if not (token := page.next_page_token):
            return found


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": COMMIT, "priority": -(2**31), "contract_id": "c-1"},
        {"kind": balance_pb2.BALANCE_KIND_CONTRACT_CREDIT, "contract_custom_fields": {"tier": "gold"}},
        {"kind": GRANT, "credit_grant_type": "promo", "custom_fields": {"ä": "", "b": "ö"}},
        {"kind": SEAT, "seat": balance_pb2.BalanceSeat(seat_group_key="user", seat_group_value="u1")},
        {"kind": LICENSE, "license_type": "pro", "quantity": access_pb2.QuantityAccess(metric_id="tokens")},
    ],
)
async def test_every_field_of_a_balance_comes_back(accounts: Stub, fields: dict[str, Any]) -> None:
    exact = "12345678901234567890.123456789012345678"
    sent = balance(segment(exact, NOW, NOW + HOUR), segment("0", NOW + HOUR), **fields)
    sent.as_of_time.CopyFrom(to_timestamp(NOW - HOUR))
    answer = await put(accounts, sent)
    assert not answer.superseded
    kept = answer.balance
    assert await get(accounts) == kept
    assert (kept.granted, kept.remaining) == (exact, exact)
    assert to_datetime(kept.create_time) == to_datetime(kept.update_time) == NOW
    for number, item in enumerate(kept.segments, start=1):
        assert (item.segment_number, item.drawn) == (number, "0")
        assert item.granted == item.remaining == item.amount
        item.ClearField("segment_number")
        item.ClearField("granted")
        item.ClearField("drawn")
        item.ClearField("remaining")
        assert item.held == "0"
        item.ClearField("held")
    assert kept.held == "0"
    kept.ClearField("held")
    kept.ClearField("granted")
    kept.ClearField("remaining")
    kept.ClearField("create_time")
    kept.ClearField("update_time")
    assert kept == sent


@own_server
async def test_a_put_replaces_segments_by_position_and_keeps_adjustments(accounts: Stub, clock: ManualClock) -> None:
    await put(accounts, balance("100", "50", priority=3, custom_fields={"a": "b"}))
    await adjust(accounts, "a1", "-30", 1)
    await adjust(accounts, "a2", "5", 2)
    clock.advance(HOUR)
    kept = (await put(accounts, balance("120"))).balance
    assert [(item.amount, item.granted, item.remaining) for item in kept.segments] == [("120", "90", "90")]
    assert (kept.granted, kept.remaining, kept.priority, dict(kept.custom_fields)) == ("90", "90", 0, {})
    assert (to_datetime(kept.create_time), to_datetime(kept.update_time)) == (NOW, NOW + HOUR)
    back = (await put(accounts, balance("120", "50", "1"))).balance
    assert [item.remaining for item in back.segments] == ["90", "55", "1"]
    assert await ledger(accounts) == [
        ("b1", 1, "GRANT", "100", "100", ""),
        ("b1", 2, "GRANT", "50", "50", ""),
        ("b1", 1, "ADJUSTMENT", "-30", "70", "a1"),
        ("b1", 2, "ADJUSTMENT", "5", "55", "a2"),
        ("b1", 1, "GRANT", "20", "90", ""),
        ("b1", 2, "GRANT", "-55", "0", ""),
        ("b1", 2, "GRANT", "55", "55", ""),
        ("b1", 3, "GRANT", "1", "1", ""),
    ]


@own_server
async def test_a_repeated_put_changes_only_the_as_of_time(accounts: Stub, clock: ManualClock) -> None:
    await put(accounts, balance("1.50"))
    clock.advance(HOUR)
    again = await put(accounts, balance("1.5"))
    assert not again.superseded
    assert (to_datetime(again.balance.update_time), to_datetime(again.balance.as_of_time)) == (NOW, NOW + HOUR)
    assert again.balance == await get(accounts)
    assert await ledger(accounts) == [("b1", 1, "GRANT", "1.5", "1.5", "")]


async def test_an_older_put_is_superseded_and_returns_the_newer_balance(accounts: Stub) -> None:
    newer = await put(accounts, balance("2"), NOW)
    older = await put(accounts, balance("1"), NOW - HOUR)
    assert (older.balance, older.superseded) == (newer.balance, True)
    equal = await put(accounts, balance("3"), NOW)
    assert (equal.balance.remaining, equal.superseded) == ("3", False)


async def test_concurrent_puts_leave_the_newest_fact_and_a_ledger_that_adds_up(accounts: Stub) -> None:
    ages = [3, 9, 1, 7, 5, 8, 2, 6, 4, 10]
    await asyncio.gather(*(put(accounts, balance(str(age)), NOW - age * HOUR) for age in ages))
    assert (await get(accounts)).remaining == "1"
    entries = await ledger(accounts)
    assert sum(int(entry[3]) for entry in entries) == 1
    assert entries[-1][4] == "1"


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"kind": balance_pb2.BALANCE_KIND_CONTRACT_CREDIT}, "kind"),
        ({"spend": access_pb2.SpendAccess(currency="EUR")}, "access"),
        ({"quantity": access_pb2.QuantityAccess(metric_id="USD")}, "access"),
    ],
)
async def test_a_put_that_changes_the_kind_or_unit_of_a_balance_is_refused(
    accounts: Stub, other: dict[str, Any], field: str
) -> None:
    before = (await put(accounts, balance())).balance
    call = put(accounts, balance("1", **other))
    await assert_refused(call, grpc.StatusCode.FAILED_PRECONDITION, "BALANCE_FIXED")
    older = await put(accounts, balance("1", **other), NOW - HOUR)
    assert older.superseded
    assert await get(accounts) == before


async def test_a_put_that_changes_a_seat_or_a_licence_is_refused(accounts: Stub) -> None:
    seats = [balance_pb2.BalanceSeat(seat_group_key="user", seat_group_value=value) for value in ("u1", "u2")]
    await put(accounts, balance(kind=SEAT, seat=seats[0]))
    call = put(accounts, balance(kind=SEAT, seat=seats[1]))
    await assert_refused(call, grpc.StatusCode.FAILED_PRECONDITION, "BALANCE_FIXED")
    await put(accounts, balance(kind=LICENSE, license_type="pro", balance_id="b2"))
    call = put(accounts, balance(kind=LICENSE, license_type="max", balance_id="b2"))
    await assert_refused(call, grpc.StatusCode.FAILED_PRECONDITION, "BALANCE_FIXED")


@own_server
async def test_a_repeated_adjustment_returns_the_first_answer(accounts: Stub, clock: ManualClock) -> None:
    await put(accounts, balance("10"))
    clock.advance(HOUR)
    first = await adjust(accounts, "a1", "-2.50")
    assert (first.balance.granted, first.segment_number, first.replayed) == ("7.5", 1, False)
    assert to_datetime(first.balance.update_time) == NOW + HOUR
    again = await adjust(accounts, "a1", "-2.5")
    assert (again.balance, again.segment_number, again.replayed) == (first.balance, 1, True)
    assert (await adjust(accounts, "a2", "-2.5")).balance.remaining == "5"
    answers = await asyncio.gather(*(adjust(accounts, "a3", "1") for _ in range(5)))
    assert sorted(answer.replayed for answer in answers) == [False, True, True, True, True]
    assert (await get(accounts)).remaining == "6"


async def test_an_adjustment_id_belongs_to_one_adjustment_of_the_customer(accounts: Stub) -> None:
    await put(accounts, balance("10"))
    await put(accounts, balance("10", balance_id="b2"))
    await put(accounts, balance("10", customer_id="other"))
    await adjust(accounts, "a1", "1")
    for call in (
        adjust(accounts, "a1", "2"),
        adjust(accounts, "a1", "1", 1),
        adjust(accounts, "a1", "1", balance_id="b2"),
        adjust(accounts, "a1", "1", balance_id="unknown"),
    ):
        await assert_refused(call, grpc.StatusCode.ALREADY_EXISTS, "ADJUSTMENT_CONFLICT")
    request = messages.AdjustBalanceRequest(customer_id="other", balance_id="b1", adjustment_id="a1", amount="2")
    assert (await accounts.AdjustBalance(request)).balance.remaining == "12"
    assert [entry[5] for entry in await ledger(accounts)] == ["", "a1", ""]


@own_server
async def test_an_adjustment_goes_to_the_active_segment_that_ends_first(accounts: Stub, clock: ManualClock) -> None:
    segments = [
        segment("1"),
        segment("2", NOW - DAY, NOW),
        segment("3", NOW - DAY, NOW + 2 * DAY),
        segment("4", NOW, NOW + DAY),
        segment("5", NOW + HOUR, NOW + 2 * HOUR),
    ]
    await put(accounts, balance(*segments))
    assert (await adjust(accounts, "a1", "10")).segment_number == 4
    clock.advance(HOUR)
    assert (await adjust(accounts, "a2", "10")).segment_number == 5
    assert (await adjust(accounts, "a1", "10")).segment_number == 4  # as it was, not as it would be now
    clock.advance(3 * DAY)
    assert (await adjust(accounts, "a3", "10")).segment_number == 1
    assert (await adjust(accounts, "a4", "10", 2)).segment_number == 2
    assert [item.remaining for item in (await get(accounts)).segments] == ["11", "12", "3", "14", "15"]


async def test_an_adjustment_can_take_more_than_remains(accounts: Stub) -> None:
    await put(accounts, balance("10"))
    kept = (await adjust(accounts, "a1", "-10.000000000000000001")).balance
    assert (kept.granted, kept.remaining) == ("-0.000000000000000001", "-0.000000000000000001")


async def test_an_invalid_adjustment_is_refused(accounts: Stub) -> None:
    await put(accounts, balance(segment("1", NOW - DAY, NOW)))
    not_found, precondition = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION
    await assert_refused(adjust(accounts, "a", "1", balance_id="b2"), not_found, "BALANCE_NOT_FOUND")
    await assert_refused(adjust(accounts, "a", "1", 2), not_found, "SEGMENT_NOT_FOUND")
    await assert_refused(adjust(accounts, "a", "1"), precondition, "NO_ACTIVE_SEGMENT")
    await adjust(accounts, "a1", "1", 1)
    await void(accounts)
    await assert_refused(adjust(accounts, "a", "1", 1), precondition, "BALANCE_VOIDED")
    assert (await adjust(accounts, "a1", "1", 1)).replayed


@own_server
async def test_a_voided_balance_has_no_remaining_amount_and_stays_voided(accounts: Stub, clock: ManualClock) -> None:
    await put(accounts, balance("10", "5", "0"))
    await adjust(accounts, "a1", "-5", 2)
    clock.advance(HOUR)
    voided = await void(accounts)
    assert (voided.granted, voided.remaining) == ("0", "0")
    assert to_datetime(voided.void_time) == to_datetime(voided.update_time) == NOW + HOUR
    clock.advance(HOUR)
    assert await void(accounts) == voided
    again = await put(accounts, balance("99"))
    assert (again.balance, again.superseded) == (voided, True)
    assert await get(accounts) == voided
    assert (await ledger(accounts))[2:] == [
        ("b1", 2, "ADJUSTMENT", "-5", "0", "a1"),
        ("b1", 1, "VOID", "-10", "0", ""),
    ]


async def test_an_unknown_balance_is_not_found(accounts: Stub) -> None:
    await put(accounts, balance())
    for call in (get(accounts, "b2"), get(accounts, "b1", "other"), void(accounts, "b2")):
        await assert_refused(call, grpc.StatusCode.NOT_FOUND, "BALANCE_NOT_FOUND")
    assert await ledger(accounts, "b2") == []


async def test_a_refused_put_registers_no_customer(accounts: Stub) -> None:
    await assert_refused(void(accounts), grpc.StatusCode.NOT_FOUND, "BALANCE_NOT_FOUND")
    assert not (await accounts.ListCustomers(messages.ListCustomersRequest())).customers
    await put(accounts, balance())
    customers = (await accounts.ListCustomers(messages.ListCustomersRequest())).customers
    assert [customer.customer_id for customer in customers] == ["acme"]


async def test_all_violations_of_a_balance_are_named(accounts: Stub) -> None:
    await assert_violations(
        accounts.PutBalance(messages.PutBalanceRequest()),
        *(f"balance.{field}" for field in ("customer_id", "balance_id", "kind", "access", "segments")),
    )
    await assert_violations(accounts.GetBalance(messages.GetBalanceRequest()), "customer_id", "balance_id")
    await assert_violations(accounts.VoidBalance(messages.VoidBalanceRequest()), "customer_id", "balance_id")
    everything = ("adjustment_id", "amount", "segment_number", "customer_id", "balance_id")
    bad = messages.AdjustBalanceRequest(segment_number=-1)
    await assert_violations(accounts.AdjustBalance(bad), *everything)
    await assert_violations(adjust(accounts, "a", "-0.0"), "amount")
    await assert_violations(adjust(accounts, "a", "+1"), "amount")
    kinds = [COMMIT, balance_pb2.BALANCE_KIND_UNSPECIFIED]
    listing = messages.ListBalancesRequest(page_size=-1, customer_id=" ", kinds=kinds)
    await assert_violations(accounts.ListBalances(listing), "customer_id", "kinds[1]", "page_size")
    entries = messages.ListBalanceEntriesRequest(page_size=-1, balance_id=" ")
    await assert_violations(accounts.ListBalanceEntries(entries), "customer_id", "balance_id", "page_size")


async def ids(accounts: Stub, **filters: Any) -> list[str]:
    """The ids of all pages; no page is longer than the page size."""
    found: list[str] = []
    token = ""
    while True:
        page = await accounts.ListBalances(messages.ListBalancesRequest(page_size=2, page_token=token, **filters))
        assert len(page.balances) <= 2
        found += [f"{item.customer_id}/{item.balance_id}:{item.remaining}" for item in page.balances]
        if not (token := page.next_page_token):
            return found


async def test_balances_are_listed_in_byte_order_by_page_and_filter(accounts: Stub) -> None:
    for number, name in enumerate(("B/1", "acme/2", "acme/10", "é/1", "acme/1")):
        customer_id, balance_id = name.split("/")
        kind = GRANT if number % 2 else COMMIT
        await put(accounts, balance(str(number), "1", customer_id=customer_id, balance_id=balance_id, kind=kind))
    assert await ids(accounts) == ["B/1:1", "acme/1:5", "acme/10:3", "acme/2:2", "é/1:4"]
    assert await ids(accounts, customer_id="acme") == ["acme/1:5", "acme/10:3", "acme/2:2"]
    assert await ids(accounts, kinds=[GRANT]) == ["acme/2:2", "é/1:4"]
    assert await ids(accounts, kinds=[GRANT, COMMIT], customer_id="é") == ["é/1:4"]
    await void(accounts, "10")
    assert await ids(accounts, customer_id="acme") == ["acme/1:5", "acme/2:2"]
    assert await ids(accounts, customer_id="acme", include_voided=True) == ["acme/1:5", "acme/10:0", "acme/2:2"]
    assert [entry[0] for entry in await ledger(accounts)] == ["1", "1", "10", "10", "10", "10", "2", "2"]
    assert [entry[1:4] for entry in await ledger(accounts, "2")] == [(1, "GRANT", "1"), (2, "GRANT", "1")]


async def test_a_page_token_is_refused_by_another_list(accounts: Stub) -> None:
    for number in range(3):
        await put(accounts, balance(balance_id=f"b{number}"))
    token = (await accounts.ListBalances(messages.ListBalancesRequest(page_size=1))).next_page_token
    for call in (
        accounts.ListBalances(messages.ListBalancesRequest(page_token=token, include_voided=True)),
        accounts.ListInvoices(messages.ListInvoicesRequest(page_token=token)),
        accounts.ListBalanceEntries(messages.ListBalanceEntriesRequest(customer_id="acme", page_token=token)),
    ):
        await assert_refused(call, grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_an_organization_sees_only_its_own_balances(
    accounts: Stub, shared: Database, clock: ManualClock
) -> None:
    async with shared.transaction() as connection:
        acme = await keys.create_key(connection, "acme", clock.now())
        other = await keys.create_key(connection, "other", clock.now())
    as_acme, as_other = ((("authorization", f"Bearer {created.key}"),) for created in (acme, other))
    await accounts.PutBalance(messages.PutBalanceRequest(balance=balance("1")), metadata=as_acme)
    key: dict[str, Any] = {"customer_id": "acme", "balance_id": "b1"}
    adjustment = messages.AdjustBalanceRequest(**key, adjustment_id="a1", amount="1")
    for call in (
        accounts.GetBalance(messages.GetBalanceRequest(**key), metadata=as_other),
        accounts.VoidBalance(messages.VoidBalanceRequest(**key), metadata=as_other),
        accounts.AdjustBalance(adjustment, metadata=as_other),
    ):
        await assert_refused(call, grpc.StatusCode.NOT_FOUND, "BALANCE_NOT_FOUND")
    assert not (await accounts.ListBalances(messages.ListBalancesRequest(), metadata=as_other)).balances
    request = messages.ListBalanceEntriesRequest(customer_id="acme")
    assert not (await accounts.ListBalanceEntries(request, metadata=as_other)).entries
    await accounts.PutBalance(messages.PutBalanceRequest(balance=balance("7")), metadata=as_other)
    await accounts.AdjustBalance(adjustment, metadata=as_other)
    for metadata, remaining in ((as_acme, "1"), (as_other, "8")):
        answer = await accounts.GetBalance(messages.GetBalanceRequest(**key), metadata=metadata)
        assert answer.balance.remaining == remaining
