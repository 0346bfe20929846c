"""Requests of LimitService: what is read of them, and what is wrong with bad ones."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from engine.enforcement.requests import Extend, Release, Request, Reserve, Settle
from evaluator.enforcement.decisions import OveragePolicy
from evaluator.enforcement.usage import Usage
from generated.tidemark.v1 import limit_service_pb2 as messages
from server.calls.validation import Violations
from server.enforcement.reading import Check, read_item
from server.mapping.requested_usage import UsageBounds

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
BOUNDS = UsageBounds(NOW, timedelta(days=400))
USAGE: dict[str, Any] = {"customerId": "acme", "metricId": "tokens", "quantity": "12.50"}
RESERVE: dict[str, Any] = {"reservationId": "r-1", "usage": USAGE}


def read(**item: Any) -> tuple[Request | Check | None, list[tuple[str, str]]]:
    """A request of a stream, and what is wrong with it."""
    violations = Violations()
    request = read_item(violations, ParseDict(item, messages.EnforcementRequest()), BOUNDS, "requests[3]")
    return request, [(one.path, one.description) for one in violations.found]


def usage(**values: Any) -> Usage:
    plain: dict[str, Any] = {
        "cost": None,
        "currency": None,
        "subscription_id": None,
        "properties": {},
        "event_time": None,
    }
    return Usage("acme", "tokens", Decimal("12.50"), **{**plain, **values})


def test_requests_of_each_kind_are_read() -> None:
    policy = {"overagePolicy": "USAGE_OVERAGE_POLICY_CAP"}
    named = {"customerId": "acme", "reservationId": "r-1"}
    assert read(reserve={**RESERVE, "ttl": "90.5s"}) == (
        Reserve("r-1", usage(), OveragePolicy.DEFAULT, None, timedelta(seconds=90.5)),
        [],
    )
    assert read(check={"usage": USAGE, **policy}) == (Check(usage(), OveragePolicy.CAP), [])
    assert read(settle={**named, "quantity": "3", "cost": "0.1"}) == (
        Settle("acme", "r-1", Decimal(3), Decimal("0.1")),
        [],
    )
    assert read(settle=named) == (Settle("acme", "r-1", None, None), [])
    assert read(release=named) == (Release("acme", "r-1"), [])
    assert read(extend={**named, "expireTime": "2026-03-15T13:00:00Z"}) == (
        Extend("acme", "r-1", NOW + timedelta(hours=1), None),
        [],
    )


def test_usage_is_read_with_all_that_an_event_has() -> None:
    sent = {
        **USAGE,
        "subscriptionId": "s-1",
        "cost": "7",
        "currency": "USD",
        "eventTime": "2026-03-14T00:00:00Z",
        "properties": {"model": "large", "region": ""},
    }
    request, problems = read(reserve={**RESERVE, "usage": sent})
    assert problems == []
    assert isinstance(request, Reserve)
    assert request.usage == usage(
        cost=Decimal(7),
        currency="USD",
        subscription_id="s-1",
        properties={"model": "large", "region": ""},
        event_time=datetime(2026, 3, 14, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"customerId": ""}, "customer_id"),
        ({"customerId": " acme"}, "customer_id"),
        ({"metricId": ""}, "metric_id"),
        ({"subscriptionId": "a\n"}, "subscription_id"),
        ({"quantity": ""}, "quantity"),
        ({"quantity": "-1"}, "quantity"),
        ({"quantity": "1e3"}, "quantity"),
        ({"cost": "-0.01", "currency": "USD"}, "cost"),
        ({"currency": "USD"}, "currency"),
        ({"cost": "1", "currency": "usd"}, "currency"),
        ({"eventTime": "2026-03-15T12:05:01Z"}, "event_time"),
        ({"eventTime": "2025-02-08T12:00:00Z"}, "event_time"),
        ({"properties": {"": "x"}}, "properties"),
        ({"properties": {"key": "x" * 257}}, "properties['key']"),
        ({"properties": {str(number): "" for number in range(65)}}, "properties"),
    ],
)
def test_bad_usage_is_named_with_its_path(changed: dict[str, Any], path: str) -> None:
    for kind, item in (("reserve", RESERVE), ("check", {})):
        _, problems = read(**{kind: {**item, "usage": {**USAGE, **changed}}})
        assert [found for found, _ in problems] == [f"requests[3].{kind}.usage.{path}"]


@pytest.mark.parametrize(
    ("expiry", "path"),
    [
        ({"ttl": "0s"}, "ttl"),
        ({"ttl": "-1s"}, "ttl"),
        ({"ttl": "86400.000000001s"}, "ttl"),
        ({"expireTime": "2026-03-16T12:00:00.000001Z"}, "expire_time"),
    ],
)
def test_expiry_out_of_bounds_is_named(expiry: dict[str, Any], path: str) -> None:
    named = {"customerId": "acme", "reservationId": "r-1"}
    for kind, item in (("reserve", RESERVE), ("extend", named)):
        _, problems = read(**{kind: {**item, **expiry}})
        assert [found for found, _ in problems] == [f"requests[3].{kind}.{path}"]


def test_expiry_at_its_limits_and_in_the_past_is_read() -> None:
    """A retry names the time of the first request, which may have passed."""
    for expiry in (
        {"ttl": "86400s"},
        {"ttl": "0.000000001s"},
        {"expireTime": "2026-03-16T12:00:00Z"},
        {"expireTime": "2020-01-01T00:00:00Z"},
    ):
        request, problems = read(reserve={**RESERVE, **expiry})
        assert problems == [], expiry
        assert isinstance(request, Reserve)
        assert request.ttl is None or request.ttl > timedelta(0)


def test_request_without_a_case_and_one_without_usage_are_named() -> None:
    assert [path for path, _ in read()[1]] == ["requests[3].request"]
    _, problems = read(check={})
    assert ("requests[3].check.usage", "it is required") in problems


def test_unknown_policy_is_named() -> None:
    sent = messages.EnforcementRequest(check=messages.CheckUsageRequest(overage_policy=17))  # type: ignore[arg-type]
    ParseDict(USAGE, sent.check.usage)
    violations = Violations()
    read_item(violations, sent, BOUNDS, "requests[0]")
    assert [one.path for one in violations.found] == ["requests[0].check.overage_policy"]
