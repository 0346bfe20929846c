"""CloudEvents as usage against real servers: the three forms, the mapping, outcomes, and once however often."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.cloudevents.mapping import event_id, parse_mapping
from runtime.clock import ManualClock
from store.identity import keys
from store.identity.keys import KeySettings
from store.identity.roles import Role
from store.postgres.database import Database
from tests.support.databases import NOON
from tests.support.gateway.http import Answer, HttpClient, HttpServer, serving_http

PATH = "/v1/events"
ONE, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
TIME = "2026-03-15T11:59:00Z"


def event(number: int = 1, **changes: Any) -> dict[str, Any]:
    stated = {"specversion": "1.0", "id": f"e-{number}", "source": "/shop", "type": "calls", "subject": "acme"}
    return {**stated, "time": TIME, "data": {"quantity": "2"}, **changes}


async def send_one(client: HttpClient, one: Any) -> Answer:
    return await client.send("POST", PATH, data=json.dumps(one), headers={"Content-Type": ONE})


async def send_batch(client: HttpClient, events: Sequence[Any]) -> Answer:
    return await client.send("POST", PATH, data=json.dumps(events), headers={"Content-Type": BATCH})


async def watch(client: HttpClient, metric: str = "calls") -> str:
    """An alert whose state shows what was counted; its id."""
    alert = {
        "displayName": metric,
        "scope": {"allCustomers": {}},
        "usageThresholdReached": {"metricId": metric},
        "thresholds": [{"value": "1000000"}],
    }
    created = await client.post("/v1/alerts", alert)
    return str(created.json["alert"]["alertId"])


async def counted(client: HttpClient, alert: str, customer: str = "acme") -> str:
    """What the alert's gauge of a customer shows."""
    found = (await client.get(f"/v1/customers/{customer}/alerts/{alert}")).json
    gauges = found["customerAlert"].get("gauges", [])
    return str(gauges[0]["gauge"]["value"]) if gauges else "0"


async def test_each_form_counts(client: HttpClient) -> None:
    alert = await watch(client)
    one = await send_one(client, event(1))
    assert one.code == 200, one.body
    expected = {"status": "COUNTED", "id": "e-1", "eventId": event_id("/shop", "e-1")}
    assert (one.json["accepted"], one.json["events"]) == (1, [expected])
    headers = {"ce-specversion": "1.0", "ce-id": "e%2D2", "ce-source": "/shop", "ce-type": "calls", "ce-time": TIME}
    binary = await client.post(PATH, {"quantity": 3}, headers={**headers, "ce-subject": "ac%6De"})
    assert (binary.code, binary.json["events"][0]["id"]) == (200, "e-2"), binary.body
    batch = await send_batch(client, [event(3), event(4)])
    assert (batch.code, batch.json["accepted"]) == (200, 2)
    assert await counted(client, alert) == "9"
    empty = await send_one(client, {key: value for key, value in event(5).items() if key != "data"})
    assert empty.json["accepted"] == 1  # an event without a quantity is one use
    assert await counted(client, alert) == "10"


async def test_an_event_counts_once_however_it_is_sent_again(database: Database, clock: ManualClock) -> None:
    events = [event(number) for number in range(200)]
    async with serving_http(database, clock) as first, serving_http(database, clock) as second:
        alert = await watch(first.client)
        # In all forms, to both servers, at the same time, in other batches, and now and then without waiting.
        senders = [send_batch(server.client, events) for server in (first, second) for _ in range(3)]
        senders += [send_batch(second.client, events[at : at + 40][::-1]) for at in range(0, 200, 40)]
        answers = await asyncio.gather(*senders)
        assert {answer.code for answer in answers} == {200}
        assert sum(answer.json["accepted"] for answer in answers) == 200
        assert await counted(first.client, alert) == "400"
    async with serving_http(database, clock) as third:  # after a restart
        again = await send_batch(third.client, events)
        assert (again.json["accepted"], again.json["duplicates"]) == (0, 200)
        single = await send_one(third.client, events[7])
        assert (single.code, single.json["duplicates"]) == (200, 1)
        assert await counted(third.client, alert) == "400"


async def test_source_and_id_together_are_the_identity(client: HttpClient) -> None:
    alert = await watch(client)
    pairs = [("a", "bc"), ("ab", "c"), ("a", "b c"), ("x" * 300, "y" * 300), ("1:a", ""), ("urn:é", "🜁")]
    sent = [event(id=one, source=source) for source, one in pairs if one]
    answer = await send_batch(client, sent)
    assert (answer.json["accepted"], answer.json["duplicates"]) == (5, 0), answer.body
    other = await send_one(client, event(id="bc", source="a", data={"quantity": "3"}))
    assert (other.code, other.reason) == (409, "ERROR_REASON_EVENT_CONFLICT")
    # An id of another way to send usage is not the id of an event of this one.
    direct = {"eventId": "bc", "customerId": "acme", "metricId": "calls", "quantity": "1", "eventTime": TIME}
    await client.post("/v1/usage:evaluate", {"batch": {"events": [direct]}})
    assert await counted(client, alert) == "11"
    # It can be taken back by the id that the answer has.
    key = {"customerId": "acme", "eventId": event_id("a", "bc"), "eventTime": TIME}
    voided = await client.post("/v1/usage:void", {"events": [key]})
    assert voided.code == 200, voided.body
    assert await counted(client, alert) == "9"


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"id": None}, ["id"]),
        ({"id": ""}, ["id"]),
        ({"id": 7}, ["id"]),
        ({"source": None}, ["source"]),
        ({"type": None}, ["type"]),
        ({"specversion": "0.3"}, ["specversion"]),
        ({"subject": None}, ["subject"]),
        ({"time": None}, ["time"]),
        ({"time": "yesterday"}, ["time"]),
        ({"time": 7}, ["time"]),
        ({"data": {"quantity": [1]}}, ["data.quantity"]),
        ({"data": {"quantity": True}}, ["data.quantity"]),
        ({"data": {"quantity": "many"}}, ["quantity"]),
        ({"data": {"quantity": 1e400}}, None),
        ({"subject": "x" * 129}, ["customer_id"]),
        ({"data_base64": "e30="}, ["data_base64"]),
        ({"datacontenttype": "text/xml"}, ["datacontenttype"]),
        ({"extension": {}}, ["extension"]),
        ({"id": "x", "subject": "\ud800"}, None),
    ],
)
async def test_an_event_that_is_wrong_is_refused_with_the_field(
    client: HttpClient, changes: dict[str, Any], fields: list[str] | None
) -> None:
    refused = await send_one(client, event(**changes))
    assert refused.code == 400, refused.body
    if fields is not None:
        assert refused.fields == fields


async def test_a_batch_with_too_many_events_is_refused_as_a_whole(client: HttpClient) -> None:
    answer = await send_batch(client, [{}] * 5_001)
    assert (answer.code, answer.reason) == (400, "ERROR_REASON_BATCH_TOO_LARGE")
    assert answer.detail("ErrorInfo")["metadata"] == {"events": "5001", "limit": "5000"}


async def test_in_a_batch_each_event_has_its_own_outcome(client: HttpClient) -> None:
    alert = await watch(client)
    events = [event(1), event(2, subject=None), "no event", event(3, data={"quantity": "x"}), event(1), event(4)]
    answer = await send_batch(client, events)
    assert answer.code == 200
    found = answer.json
    assert (found["accepted"], found["duplicates"], found["rejected"]) == (2, 1, 3)
    assert [one["status"] for one in found["events"]] == [
        *("COUNTED", "REJECTED", "REJECTED", "REJECTED", "COUNTED", "COUNTED")
    ]
    assert [one.get("id") for one in found["events"]] == ["e-1", "e-2", None, "e-3", "e-1", "e-4"]
    assert found["events"][1]["error"]["status"] == "INVALID_ARGUMENT"
    assert found["events"][3]["error"]["code"] == 400
    assert await counted(client, alert) == "4"
    alone = await send_batch(client, ["x", {}])
    assert (alone.code, alone.json["rejected"]) == (200, 2)
    assert (await send_batch(client, [])).code == 400
    assert (await send_batch(client, {})).code == 400  # type: ignore[arg-type]


async def test_numbers_are_exact(client: HttpClient) -> None:
    alert = await watch(client)
    exact = '{"quantity": 0.123456789012345678}'
    head = json.dumps(event(1)).replace('{"quantity": "2"}', exact)
    sent = await client.send("POST", PATH, data=head, headers={"Content-Type": ONE})
    assert sent.code == 200, sent.body
    whole = json.dumps(event(2)).replace('{"quantity": "2"}', '{"quantity": 12345678901234567890123456}')
    assert (await client.send("POST", PATH, data=whole, headers={"Content-Type": ONE})).code == 200
    small = json.dumps(event(3)).replace('{"quantity": "2"}', '{"quantity": 1e-3}')
    assert (await client.send("POST", PATH, data=small, headers={"Content-Type": ONE})).code == 200
    assert await counted(client, alert) == "12345678901234567890123456.124456789012345678"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": f"{ONE}; charset=latin-1"}, 415),
        ({"Content-Type": ONE.upper()}, 200),
        ({"Content-Type": f"{ONE}; charset=UTF-8"}, 200),
        ({"Content-Type": "text/plain", "ce-id": "1"}, 400),
    ],
)
async def test_the_form_is_in_the_content_type(client: HttpClient, headers: dict[str, str], code: int) -> None:
    answer = await client.send("POST", PATH, data=json.dumps(event()), headers=headers)
    assert answer.code == code, answer.body


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"[" * 100_000, b"\xff", b'{"id": NaN}'])
async def test_a_body_that_is_no_json_is_refused(client: HttpClient, body: bytes) -> None:
    assert (await client.send("POST", PATH, data=body, headers={"Content-Type": ONE})).code == 400


async def test_a_key_that_is_there_twice_is_refused_in_each_form(client: HttpClient) -> None:
    one = json.dumps(event())
    twice = one.replace('"quantity": "2"', '"quantity": "2", "quantity": "200"')
    binary = {"Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": "e", "ce-source": "/s"}
    binary |= {"ce-type": "calls", "ce-subject": "acme", "ce-time": TIME}
    encoded = json.dumps(event(data_base64=b64encode(b'{"quantity": 1, "quantity": 2}').decode()))
    for body, headers, path in (
        (twice, {"Content-Type": ONE}, "data.quantity"),
        (one.replace("{", '{"id": "other", ', 1), {"Content-Type": ONE}, "id"),
        (f"[{one}, {twice}]", {"Content-Type": BATCH}, "[1].data.quantity"),
        ('{"quantity": 1, "quantity": 2}', binary, "data.quantity"),
        (encoded.replace('"data": {"quantity": "2"}, ', ""), {"Content-Type": ONE}, "data_base64"),
    ):
        answer = await client.send("POST", PATH, data=body, headers=headers)
        assert (answer.code, answer.reason, answer.fields) == (400, "ERROR_REASON_INVALID_FIELD", [path]), answer.body
        assert "twice" in answer.error["message"]


async def test_an_event_with_very_many_members_is_refused(client: HttpClient) -> None:
    for many in (1_100, 30_000):
        for one in (
            event(data={f"k{key}": 1 for key in range(many)}),
            event(**{f"k{key}": 1 for key in range(many)}),
        ):
            answer = await send_one(client, one)
            assert (answer.code, answer.reason) == (400, "ERROR_REASON_INVALID_FIELD")
            assert "more than" in answer.error["message"]
    answer = await send_batch(client, [event(1), event(2, data={f"k{key}": 1 for key in range(1_100)}), event(3)])
    assert [one["status"] for one in answer.json["events"]] == ["COUNTED", "REJECTED", "COUNTED"]


async def test_rules_of_a_mapping_choose_by_type_and_source(database: Database, clock: ManualClock) -> None:
    mapping = parse_mapping(
        {
            "rules": [
                {
                    "types": ["com.acme.llm.*"],
                    "metric_id": {"value": "tokens"},
                    "customer_id": "data.account.id",
                    "quantity": "data.usage.total",
                    "properties": {"model": "data.model", "region": "region"},
                    "other_data": False,
                },
                {"types": ["com.acme.raw"], "sources": ["/gateway/*"], "event_name": "type"},
            ]
        }
    )
    async with serving_http(database, clock, mapping=mapping) as server:
        tokens, raw = await watch(server.client, "tokens"), await watch(server.client, "requests")
        metric = {"eventName": "com.acme.raw", "aggregation": "AGGREGATION_COUNT"}
        assert (await server.client.send("PUT", "/v1/metrics/requests", json=metric)).code == 200
        data = {"account": {"id": "acme"}, "usage": {"total": 7}, "model": "m", "prompt": "secret"}
        events = [
            event(1, type="com.acme.llm.chat", data=data, region="eu", subject=None),
            event(2, type="com.acme.raw", source="/gateway/1", data={}),
            event(3, type="com.acme.raw", source="/elsewhere"),
            event(4, type="com.acme.llm.chat", data={"usage": {"total": 1}}),
        ]
        answer = await send_batch(server.client, events)
        assert answer.json["accepted"] == 2, answer.body
        assert [one["status"] for one in answer.json["events"]] == ["COUNTED", "COUNTED", "REJECTED", "REJECTED"]
        paths = [one["error"]["details"][1]["fieldViolations"][0]["field"] for one in answer.json["events"][2:]]
        assert paths == ["type", "data.account.id"]
        assert (await counted(server.client, tokens), await counted(server.client, raw)) == ("7", "1")


async def test_only_keys_that_may_send_usage_are_served(http_server: HttpServer, shared_pool: Database) -> None:
    async def key(*roles: Role) -> HttpClient:
        async with shared_pool.transaction() as connection:
            settings = KeySettings(frozenset(roles))
            created = await keys.create_key(connection, "acme", NOON, settings)
        return http_server.client.with_key(created.key)

    ingester, reader = await key(Role.INGESTER), await key(Role.READER)
    many: list[list[Any]] = [[event()], [{}], [event()] * 1_000]
    for events in many:  # a batch without a good event, and a large one, too
        assert (await send_batch(ingester, events)).code == 200
        assert (await send_batch(reader, events)).code == 403
        assert (await send_batch(http_server.client, events)).code == 401
