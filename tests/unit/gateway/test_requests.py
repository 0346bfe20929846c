"""Requests from paths and queries: which route, which fields, and what is refused."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from gateway.transcoding.problems import Problems
from gateway.transcoding.requests import NotJson, read_request
from gateway.transcoding.routes import Router, routes

ROUTER = Router(routes())


def read(target: str, verb: str = "GET", body: bytes = b"") -> tuple[dict[str, Any], list[str]]:
    """The request of a target as JSON, and the paths of its problems."""
    path, _, query = target.partition("?")
    found = ROUTER.find(path)
    assert found is not None
    route, values = found.by_verb[verb]
    problems = Problems()
    *_, message = [None, *read_request(route, values, query, body, problems)]
    return ({} if message is None else MessageToDict(message)), [one.path for one in problems.found]


@pytest.mark.parametrize(
    ("verb", "path", "method", "values"),
    [
        ("GET", "/v1/alerts", "ListAlerts", ()),
        ("GET", "/v1/alerts/a", "GetAlert", ("a",)),
        ("POST", "/v1/alerts/a:enable", "EnableAlert", ("a",)),
        ("POST", "/v1/alerts/a:b:enable", "EnableAlert", ("a:b",)),
        ("GET", "/v1/alerts/a:b", "GetAlert", ("a:b",)),
        ("GET", "/v1/alerts/a%3Aenable", "GetAlert", ("a%3Aenable",)),
        ("POST", "/v1/alerts:batchCreate", "BatchCreateAlerts", ()),
        ("GET", "/v1/customers:lookup", "GetCustomer", ()),
        ("GET", "/v1/customers/a", "GetCustomer", ("a",)),
        ("GET", "/v1/customers/a/alerts/b:explain", "ExplainCustomerAlert", ("a", "b")),
        ("GET", "/v1/customers/a%2Fb/alerts/c", "GetCustomerAlert", ("a%2Fb", "c")),
    ],
)
def test_a_path_finds_its_method(verb: str, path: str, method: str, values: tuple[str, ...]) -> None:
    found = ROUTER.find(path)
    assert found is not None
    route, found_values = found.by_verb[verb]
    assert (route.method.name, found_values) == (method, values)


@pytest.mark.parametrize(
    "path", ["", "/", "/v1", "/v1/", "/v1/alerts/", "/v2/alerts", "/v1/alerts/a/b/c", "v1/alerts"]
)
def test_other_paths_find_nothing(path: str) -> None:
    assert ROUTER.find(path) is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("pageSize=3", {"pageSize": 3}),
        ("page_size=3", {"pageSize": 3}),
        ("states=ALERT_STATE_ACTIVE&states=2", {"states": ["ALERT_STATE_ACTIVE", "ALERT_STATE_DISABLED"]}),
        ("labels%5Bteam%5D=growth", {"labels": {"team": "growth"}}),
        ("labels[a.b]=c+d%26e&labels[]=x", {"labels": {"a.b": "c d&e", "": "x"}}),
        ("customerId=%C3%A9%F0%9F%9C%81", {"customerId": "é🜁"}),
        ("&pageSize=3&", {"pageSize": 3}),
        ("createTimeFrom=2026-01-01T00%3A00%3A00%2B01%3A00", None),
    ],
)
def test_parameters_are_fields_of_the_request(query: str, expected: Any) -> None:
    found, problems = read(f"/v1/alerts?{query}")
    if expected is not None:
        assert (found, problems) == (expected, [])


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/v1/alerts?nothing=1", "nothing"),
        ("/v1/alerts?pageSize=x", "page_size"),
        ("/v1/alerts?pageSize=1&page_size=2", "page_size"),
        ("/v1/alerts?pageSize[x]=1", "pageSize[x]"),
        ("/v1/alerts?labels=1", "labels"),
        ("/v1/alerts?labels[a]=1&labels[a]=2", "labels[a]"),
        ("/v1/alerts?states=NONE", "states[0]"),
        ("/v1/alerts?customerId=%FF", "customerId"),
        ("/v1/alerts?states.x=1", "states.x"),
        ("/v1/alerts/a?alertId=b", "alertId"),
        ("/v1/notifications:watch?startTime=now", "start_time"),
    ],
)
def test_other_parameters_are_refused_by_name(target: str, path: str) -> None:
    assert read(target) == ({}, [path])


def test_a_mask_may_have_both_kinds_of_names() -> None:
    for mask in ("displayName,scope.customer", "display_name,scope.customer", "display_name%2C%20scope.customer"):
        found, problems = read(f"/v1/alerts/a?updateMask={mask}", "PATCH", b"{}")
        assert (found["updateMask"], problems) == ("displayName,scope.customer", [])


def test_the_path_fills_the_resource_in_the_body() -> None:
    found, problems = read("/v1/customers/acme", "PUT", b'{"displayName": "Acme"}')
    assert (found["customer"], problems) == ({"customerId": "acme", "displayName": "Acme"}, [])
    same, problems = read("/v1/customers/acme", "PUT", b'{"customer_id": "acme"}')
    assert (same["customer"], problems) == ({"customerId": "acme"}, [])
    assert read("/v1/customers/acme", "PUT", b'{"customerId": "other"}') == ({}, ["customer.customer_id"])
    assert read("/v1/customers/acme?customer.displayName=x", "PUT", b"{}") == ({}, ["customer.displayName"])


def test_a_number_in_a_path_is_a_number() -> None:
    assert read("/v1/auditEntries/7") == ({"entryNumber": "7"}, [])
    assert read("/v1/auditEntries/seven") == ({}, ["entry_number"])
    assert read(f"/v1/auditEntries/{2**64}") == ({}, ["entry_number"])


def test_a_body_that_is_no_json_says_where() -> None:
    with pytest.raises(NotJson, match="line 2"):
        read("/v1/alerts/a:archive", "POST", b'{\n"a" 1}')


def test_bodies_of_white_space_are_none() -> None:
    assert read("/v1/alerts", "GET", b" \n") == ({}, [])
    assert read("/v1/alerts", "GET", b"{}")[1] == [""]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"etag": "1", "etag": "2"}', "etag"),
        (b'{"etag" : "1", "etag": "2"}', "etag"),
        (b'{"etag"\n:"1","e\\u0074ag":"2"}', "etag"),
        (b'{"etag": "\\":", "etag": "2"}', "etag"),
        (b'{"etag": null, "etag": "2"}', "etag"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(body: bytes, path: str) -> None:
    assert read("/v1/alerts/a:archive", "POST", body) == ({}, [path])


def test_a_key_that_is_there_twice_is_named_with_its_place() -> None:
    event = b'{"eventId": "e", "properties": {"a": "1"}}'
    twice = b'{"eventId": "e", "properties": {"a": "1", "b": "", "a": "2"}}'
    body = b'{"batch": {"events": [' + event + b", " + twice + b"]}}"
    assert read("/v1/usage:evaluate", "POST", body)[1] == ["batch.events[1].properties.a"]


@pytest.mark.parametrize(
    "text", ['"":', '\\":', " :", '{"a": 1, "a": 2}', '"a":"a":', "x" * 300 + '":'], ids=lambda text: text[:10]
)
def test_texts_that_look_like_keys_are_none(text: str) -> None:
    body = json.dumps({"etag": text}, indent=1).encode()
    assert read("/v1/alerts/a:archive", "POST", body) == ({"alertId": "a", "etag": text}, [])
    spaced = json.dumps({"etag": text}, separators=(", ", " : ")).encode()
    assert read("/v1/alerts/a:archive", "POST", spaced) == ({"alertId": "a", "etag": text}, [])


@pytest.mark.parametrize(
    "alert",
    [
        {"thresholds": [{}] * 9_000},
        {"labels": {f"k{key}": "v" for key in range(9_000)}},
        {"costExceeded": {"groupingKeys": [""] * 9_000}},
    ],
    ids=["objects", "entries", "texts"],
)
def test_a_request_with_very_many_values_is_refused_without_reading_all(alert: dict[str, Any]) -> None:
    body = json.dumps({"requests": [{"alert": alert}] * 20}).encode()
    found, [path] = read("/v1/alerts:batchCreate", "POST", body)
    assert found == {}
    assert path.startswith("requests[11].alert.")


def test_events_are_read_in_parts_with_the_same_result() -> None:
    route, values = ROUTER.find("/v1/usage:evaluate").by_verb["POST"]  # type: ignore[union-attr]
    events = [{"eventId": f"e-{number}", "properties": {"a": "1", "b": "2"}} for number in range(3_000)]
    body = json.dumps({"batch": {"batchId": "b", "events": events}}).encode()
    [whole] = read_request(route, values, "", body, Problems())
    *parts, message = read_request(route, values, "", body, Problems(reads_later=True))
    assert len(parts) > 5
    assert set(parts) == {None}
    assert message == whole
    bad = Problems(reads_later=True)
    body = json.dumps({"batch": {"events": [*events, {"eventId": 1}, None]}}).encode()
    assert [one for one in read_request(route, values, "", body, bad) if one is not None] == []
    assert [one.path for one in bad.found] == ["batch.events[3000].event_id", "batch.events[3001]"]
