"""Customers with many balances and seats, written directly into the database to save time, and alerts on them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg

from generated.tidemark.v1 import (
    access_pb2,
    alert_pb2,
    condition_pb2,
    filter_pb2,
    scope_pb2,
    threshold_pb2,
)

CURRENCY = "USD"
SPEND = access_pb2.SpendAccess(currency=CURRENCY)
SEAT_KEY = "user_id"
POOLED_AMOUNT = 100  # of each balance without a seat
SEAT_AMOUNT = 100_000  # of the credit of each seat

Connection = psycopg.Connection[tuple[object, ...]]

_BALANCES = """
INSERT INTO balance (
    organization_id, customer_id, balance_id, kind, currency, priority, contract_custom_fields, custom_fields,
    seat_group_key, seat_group_value, draw_down, allow_overage, draw_down_metric_ids, as_of_time, create_time,
    update_time
)
SELECT organization_id, customer_id, %(prefix)s || lpad(number::text, 6, '0'), %(kind)s, %(currency)s, 0, '{}', '{}',
    %(key)s::text, CASE WHEN %(key)s::text IS NULL THEN NULL ELSE 'seat-' || lpad(number::text, 6, '0') END,
    true, false, '{}', now(), now(), now()
FROM customer, generate_series(0, %(count)s - 1) AS number WHERE customer_id = ANY(%(customers)s)
"""
_SEGMENTS = """
INSERT INTO balance_segment (
    organization_id, customer_id, balance_id, segment_number, amount, adjusted, drawn, start_time, end_time, removed
)
SELECT organization_id, customer_id, balance_id, 1, %(amount)s, 0, 0, now() - interval '1 day',
    now() + interval '1 year', false
FROM balance WHERE customer_id = ANY(%(customers)s) AND kind = %(kind)s
"""
_WALLET = """
INSERT INTO wallet (organization_id, customer_id, draw_units, seat_keys)
SELECT organization_id, customer_id, ARRAY[%(unit)s], ARRAY[%(key)s]
FROM customer WHERE customer_id = ANY(%(customers)s)
ON CONFLICT (organization_id, customer_id)
    DO UPDATE SET draw_units = excluded.draw_units, seat_keys = excluded.seat_keys
"""


def grant(connection: Connection, customers: Sequence[str], balances: int, seats: int) -> None:
    """Gives existing customers so many commits, and so many seats with a credit each; usage draws on all of them."""
    for prefix, kind, key, amount, count in (
        ("commit-", "COMMIT", None, POOLED_AMOUNT, balances),
        ("seat-", "SEAT_CREDIT", SEAT_KEY, SEAT_AMOUNT, seats),
    ):
        parameters = {
            "customers": customers,
            "prefix": prefix,
            "kind": kind,
            "key": key,
            "currency": CURRENCY,
            "amount": amount,
            "count": count,
        }
        connection.execute(_BALANCES, parameters)
        connection.execute(_SEGMENTS, parameters)
    connection.execute(_WALLET, {"customers": customers, "unit": f"cost/{CURRENCY}", "key": SEAT_KEY})


def seat(number: int) -> str:
    """The name of a seat, counted from 0."""
    return f"seat-{number:06d}"


def alerts() -> list[alert_pb2.Alert]:
    """Alerts of all customers: on remaining commits, on their percentage, and on each seat."""
    percent = condition_pb2.LowRemainingCommitPercentageReachedCondition(spend=SPEND)
    of_seats = condition_pb2.LowRemainingSeatBalanceReachedCondition(
        seat_filter=filter_pb2.SeatFilter(seat_group_key=SEAT_KEY), spend=SPEND
    )
    return [
        commit_alert(),
        _alert("share of commits", low_remaining_commit_percentage_reached=percent),
        _alert("seats", low_remaining_seat_balance_reached=of_seats),
    ]


def commit_alert() -> alert_pb2.Alert:
    """The alert on remaining commits."""
    commits = condition_pb2.LowRemainingCommitBalanceReachedCondition(spend=SPEND)
    return _alert("commits", low_remaining_commit_balance_reached=commits)


def _alert(name: str, **condition: Any) -> alert_pb2.Alert:
    all_customers = scope_pb2.AlertScope(all_customers=scope_pb2.AllCustomersScope())
    return alert_pb2.Alert(
        display_name=name, scope=all_customers, thresholds=[threshold_pb2.Threshold(value="1")], **condition
    )


_END = """
UPDATE balance_segment s SET end_time = i.end_time
FROM unnest(%(customers)s::text[], %(ends)s::timestamptz[]) AS i (customer_id, end_time)
WHERE s.customer_id = i.customer_id COLLATE "C"
"""


def grant_until(connection: Connection, ends: Mapping[str, datetime]) -> None:
    """Gives each of these customers one commit, which ends at the time of the customer."""
    grant(connection, list(ends), 1, 0)
    connection.execute(_END, {"customers": list(ends), "ends": list(ends.values())})


_TOTALS = """
SELECT (SELECT sum(cost) FROM event WHERE customer_id = %(customer)s AND event_id NOT LIKE 'first-%%'),
    (SELECT sum(drawn) FROM balance_segment WHERE customer_id = %(customer)s),
    (SELECT sum(amount - drawn) FROM balance_segment JOIN balance USING (organization_id, customer_id, balance_id)
        WHERE customer_id = %(customer)s AND kind = 'COMMIT'),
    (SELECT sum(value) FROM gauge WHERE customer_id = %(customer)s AND measure LIKE '%%["COMMIT"]%%"REMAINING"}%%')
"""


def totals(connection: Connection, customer: str) -> tuple[Decimal, ...]:
    """Used cost, drawn cost, remaining commits of a customer, and the value of the gauge of remaining commits."""
    row = connection.execute(_TOTALS, {"customer": customer}).fetchone()
    assert row is not None
    return tuple(Decimal(str(value)) for value in row)
