"""A balance of a request to the fact, or to all its violations."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from google.protobuf import text_format

from evaluator.balances import BalanceKind, Seat
from generated.tidemark.v1 import balance_pb2
from server.calls.errors import InvalidArgument
from server.calls.validation import Violations
from server.mapping.balances import balance_message, read_balance, read_kinds
from store.balances.balances import BalanceFact, SegmentFact, StoredBalance, StoredSegment
from tests.support.balances.facts import a_commit

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

IDS = 'customer_id: "acme" balance_id: "b1" '
COMMIT = IDS + "kind: BALANCE_KIND_COMMIT "
USD = 'spend { currency: "USD" } '
SEGMENT = 'segments { amount: "10" start_time { seconds: 1 } } '


def read(text: str) -> BalanceFact:
    """The fact of a balance that is written in protobuf's text format."""
    return read_balance(Violations(), "balance", text_format.Parse(text, balance_pb2.Balance()), NOW)


def refused(text: str) -> list[str]:
    """The paths of all violations of a balance."""
    with pytest.raises(InvalidArgument) as error:
        read(text)
    return [violation.path.removeprefix("balance.") for violation in error.value.violations]


def test_a_balance_gets_defaults() -> None:
    assert read(COMMIT + USD + SEGMENT) == a_commit([Decimal(10)], datetime(1970, 1, 1, tzinfo=UTC) + SECOND, NOW)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("kind: BALANCE_KIND_COMMIT", BalanceKind.COMMIT),
        ("kind: BALANCE_KIND_CONTRACT_CREDIT", BalanceKind.CONTRACT_CREDIT),
        ('kind: BALANCE_KIND_CREDIT_GRANT credit_grant_type: "promo"', BalanceKind.CREDIT_GRANT),
        (
            'kind: BALANCE_KIND_SEAT_CREDIT seat { seat_group_key: "user" seat_group_value: " u 1" }',
            BalanceKind.SEAT_CREDIT,
        ),
        ('kind: BALANCE_KIND_LICENSE_ALLOTMENT license_type: "pro"', BalanceKind.LICENSE_ALLOTMENT),
    ],
)
def test_a_balance_of_each_kind_keeps_its_own_fields(text: str, kind: BalanceKind) -> None:
    fact = read(IDS + text + ' quantity { metric_id: "tokens" } ' + SEGMENT)
    assert (fact.kind, fact.currency, fact.metric_id) == (kind, None, "tokens")
    assert fact.credit_grant_type == ("promo" if kind is BalanceKind.CREDIT_GRANT else None)
    assert fact.seat == (Seat("user", " u 1") if kind is BalanceKind.SEAT_CREDIT else None)
    assert fact.license_type == ("pro" if kind is BalanceKind.LICENSE_ALLOTMENT else None)


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("", ["customer_id", "balance_id", "kind", "access", "segments"]),
        (IDS + USD + SEGMENT, ["kind"]),
        (IDS + "kind: 99 " + USD + SEGMENT, ["kind"]),
        (COMMIT + "spend {} " + SEGMENT, ["spend.currency"]),
        (COMMIT + 'spend { currency: "usd" } ' + SEGMENT, ["spend.currency"]),
        (COMMIT + "quantity {} " + SEGMENT, ["quantity.metric_id"]),
        (COMMIT + USD + SEGMENT + 'contract_id: " c"', ["contract_id"]),
        (COMMIT + USD + SEGMENT + 'custom_fields { key: "" value: "v" }', ["custom_fields"]),
        (
            COMMIT + USD + SEGMENT + r'contract_custom_fields { key: "k" value: "\000" }',
            ["contract_custom_fields['k']"],
        ),
        (COMMIT + USD + SEGMENT + 'credit_grant_type: "promo"', ["credit_grant_type"]),
        (COMMIT + USD + SEGMENT + 'license_type: "pro"', ["license_type"]),
        (COMMIT + USD + SEGMENT + 'seat { seat_group_key: "k" seat_group_value: "v" }', ["seat"]),
        (IDS + "kind: BALANCE_KIND_SEAT_CREDIT " + USD + SEGMENT, ["seat"]),
        (
            IDS + "kind: BALANCE_KIND_SEAT_CREDIT seat {} " + USD + SEGMENT,
            ["seat.seat_group_key", "seat.seat_group_value"],
        ),
        (IDS + "kind: BALANCE_KIND_LICENSE_ALLOTMENT " + USD + SEGMENT, ["license_type"]),
        (COMMIT + USD + SEGMENT + "allow_overage: true", ["allow_overage"]),
        (COMMIT + USD + SEGMENT + 'draw_down_metric_ids: "m"', ["draw_down_metric_ids"]),
        (
            COMMIT + 'quantity { metric_id: "m" } draw_down: true draw_down_metric_ids: "m" ' + SEGMENT,
            ["draw_down_metric_ids"],
        ),
        (
            COMMIT + USD + SEGMENT + 'draw_down: true draw_down_metric_ids: ["m", "", "m"]',
            ["draw_down_metric_ids[1]", "draw_down_metric_ids[2]"],
        ),
        (COMMIT + USD + "segments {}", ["segments[0].amount", "segments[0].start_time"]),
        (COMMIT + USD + 'segments { amount: "-1" start_time {} }', ["segments[0].amount"]),
        (COMMIT + USD + SEGMENT + 'segments { amount: "1e2" start_time {} }', ["segments[1].amount"]),
        (
            COMMIT + USD + 'segments { amount: "1" start_time { seconds: 5 } end_time { seconds: 5 } }',
            ["segments[0].end_time"],
        ),
        (COMMIT + USD + 'segments { amount: "1" start_time { nanos: -1 } }', ["segments[0].start_time"]),
        (COMMIT + USD + 'segments { amount: "0" start_time {} }' * 1001, ["segments"]),
        (COMMIT + USD + SEGMENT + "as_of_time { seconds: 9999999999 }", ["as_of_time"]),
    ],
)
def test_an_invalid_balance_is_refused_by_field(text: str, paths: list[str]) -> None:
    assert refused(text) == paths


def test_a_balance_with_a_thousand_segments_is_accepted() -> None:
    assert len(read(COMMIT + USD + 'segments { amount: "0" start_time {} }' * 1000).segments) == 1000


def test_the_draw_settings_of_a_balance_are_read() -> None:
    fact = read(COMMIT + USD + SEGMENT + 'draw_down: true allow_overage: true draw_down_metric_ids: ["m", "a"]')
    assert (fact.draw_down, fact.allow_overage, fact.draw_down_metric_ids) == (True, True, ("a", "m"))


def test_a_list_filter_reads_kinds() -> None:
    commit, grant = balance_pb2.BALANCE_KIND_COMMIT, balance_pb2.BALANCE_KIND_CREDIT_GRANT
    violations = Violations()
    assert read_kinds(violations, "kinds", [grant, commit, grant]) == (BalanceKind.COMMIT, BalanceKind.CREDIT_GRANT)
    assert not violations.found
    read_kinds(violations, "kinds", [commit, balance_pb2.BALANCE_KIND_UNSPECIFIED])
    assert [violation.path for violation in violations.found] == ["kinds[1]"]


@pytest.mark.parametrize(
    ("at", "granted", "remaining"),
    [
        (NOW - SECOND, "0", "0"),
        (NOW, "12.5", "11.25"),
        (NOW + SECOND, "112.5", "111.25"),
        (NOW + 2 * SECOND, "100", "100"),
    ],
)
def test_the_remaining_amount_counts_only_active_segments(at: datetime, granted: str, remaining: str) -> None:
    segments = (
        StoredSegment(1, SegmentFact(Decimal(10), NOW, NOW + 2 * SECOND), Decimal("2.5"), Decimal("1.25")),
        StoredSegment(2, SegmentFact(Decimal("100.00"), NOW + SECOND, None)),
    )
    balance = StoredBalance(1, read(COMMIT + USD + SEGMENT), segments, None, NOW, NOW)
    shown = balance_message(balance, at)
    assert (shown.granted, shown.remaining) == (granted, remaining)
    assert [(item.granted, item.drawn, item.remaining) for item in shown.segments] == [
        ("12.5", "1.25", "11.25"),
        ("100", "0", "100"),
    ]
    voided = balance_message(StoredBalance(1, balance.fact, segments, NOW, NOW, NOW), at)
    assert (voided.granted, voided.remaining) == ("0", "0")
