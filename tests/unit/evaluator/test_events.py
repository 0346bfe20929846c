"""Usage events, and those that settle reservations."""

from datetime import UTC, datetime
from decimal import Decimal

from evaluator.events import SettlingEvent, UsageEvent

EVENT = UsageEvent(
    *("e-1", "acme", datetime(2026, 3, 15, tzinfo=UTC), "tokens", Decimal(7), None, None, None),
    {"region": "eu"},
)


def test_event_settles_no_reservation_unless_it_is_made_so() -> None:
    assert EVENT.reservation_id is None
    settling = SettlingEvent.of(EVENT, "r-1")
    assert settling.reservation_id == "r-1"
    assert settling == EVENT  # the same columns, whatever it settles


def test_changed_copy_settles_the_same_reservation() -> None:
    changed = SettlingEvent.of(EVENT, "r-1")._replace(currency="USD", cost=Decimal(2))
    assert (changed.reservation_id, changed.currency, changed.metric_id) == ("r-1", "USD", "tokens")
    assert isinstance(changed, SettlingEvent)
