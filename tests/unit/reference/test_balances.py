"""Balances of the reference model, compared with sums that were done by hand."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

from tests.reference.balances import COMMIT, SEAT_CREDIT, Terms, Wallet
from tests.reference.gauges import Event

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
UNIT = ("cost", "X")


def put(
    wallet: Wallet,
    balance_id: str,
    kind: str = COMMIT,
    *,
    priority: int = 0,
    end: datetime | None = None,
    seat: tuple[str, str] | None = None,
) -> None:
    terms = Terms(balance_id, kind, UNIT, priority=priority, seat=seat)
    wallet.put(terms, [(Fraction(10), NOW - timedelta(days=1), end)])


def use(wallet: Wallet, cost: int, **properties: str) -> None:
    event = Event("e", "acme", NOW, "calls", Fraction(1), None, Fraction(cost), "X", tuple(properties.items()))
    wallet.use(event)


def left(wallet: Wallet) -> dict[str, Fraction]:
    return {balance_id: remaining for (balance_id, _), remaining in wallet.remaining().items()}


def test_a_seat_gives_first_then_priority_then_what_ends_first_and_corrections_go_back() -> None:
    wallet = Wallet()
    put(wallet, "late", priority=1)
    put(wallet, "early", priority=1, end=NOW + timedelta(days=1))
    put(wallet, "over", end=NOW)
    put(wallet, "last", priority=2)
    put(wallet, "seat", SEAT_CREDIT, seat=("user", "ann"), priority=9)
    use(wallet, 12, user="bob")
    assert left(wallet) == {"late": 8, "early": 0, "over": 10, "last": 10, "seat": 10}
    use(wallet, 20, user="ann")
    assert left(wallet) == {"late": 0, "early": 0, "over": 10, "last": 8, "seat": 0}
    use(wallet, 20)
    assert wallet.overage == {UNIT: 12}
    use(wallet, -25)
    assert left(wallet) == {"late": 3, "early": 0, "over": 10, "last": 10, "seat": 0}
    assert wallet.overage == {UNIT: 0}
