"""What a client can hold of the HTTP port, and requests that are no good ones: each is answered or closed in time."""

import asyncio
import gzip
import json
import zlib
from typing import Any

import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from generated.tidemark.v1 import alert_pb2, alert_service_pb2
from tests.support.gateway.echo import ALERTS, EMPTY, HEAD, Echo, echoing, echoing_front, raw
from tests.support.gateway.http import HttpClient
from tests.support.waiting import within


def listed(count: int) -> alert_service_pb2.ListAlertsResponse:
    return alert_service_pb2.ListAlertsResponse(alerts=[alert_pb2.Alert(alert_id=f"alt_{n}") for n in range(count)])


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "application/vnd.acme+json"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Encoding": "br"}, 415),
        ({"Accept": "text/html"}, 406),
        ({"Accept": "application/json;q=0"}, 406),
        ({"Accept": "text/html, */*;q=0.1"}, 200),
        ({"Accept": "application/*"}, 200),
        ({"Request-Timeout": "soon"}, 400),
        ({"Request-Timeout": "0"}, 400),
        ({"Request-Timeout": "-1"}, 400),
        ({"Request-Timeout": "1e9"}, 400),
        ({"Request-Timeout": "2.5"}, 200),
        ({"If-Match": "7"}, 400),
    ],
)
async def test_headers_of_a_request(echo: Echo, http: HttpClient, headers: dict[str, str], code: int) -> None:
    echo.answers = [alert_service_pb2.ArchiveAlertResponse()]
    answer = await http.send(
        "POST", "/v1/alerts/a:archive", data=b"{}", headers={"Content-Type": "application/json", **headers}
    )
    assert answer.code == code, answer.body
    if code != 200:
        assert answer.reason in ("ERROR_REASON_MALFORMED_MESSAGE", "ERROR_REASON_INVALID_FIELD")


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b"1", b'"x"', b"nul", b'{"a":1}', b"\xff", b'{"etag": "\\ud800"}', b"[" * 100_000, b"{}x"]
)
async def test_a_body_that_is_no_request_is_refused(echo: Echo, http: HttpClient, body: bytes) -> None:
    answer = await http.send("POST", "/v1/alerts/a:archive", data=body, headers={"Content-Type": "application/json"})
    assert answer.code == 400, answer.body
    assert answer.error["status"] == "INVALID_ARGUMENT"


async def test_a_deadline_goes_on_to_the_call(echo: Echo, http: HttpClient) -> None:
    echo.answers = [EMPTY]
    await http.get(ALERTS, headers={"Request-Timeout": "3"})
    assert echo.remaining is not None
    assert 0 < echo.remaining < 4
    await http.get(ALERTS)
    assert echo.remaining is None  # the server has its own then


async def test_metadata_of_a_call(echo: Echo, http: HttpClient) -> None:
    echo.answers = [EMPTY]
    sent = {
        "Authorization": "Bearer tmk_x",
        "X-Request-Id": "r",
        "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        "Cookie": "secret",
        "X-Tidemark-Forwarded-Peer": "forged",
        "User-Agent": "agént/1",
    }
    await http.get(ALERTS, headers=sent)
    assert echo.metadata["authorization"] == "Bearer tmk_x"
    assert echo.metadata["x-request-id"] == "r"
    assert echo.metadata["traceparent"].startswith("00-1")
    assert echo.metadata["x-tidemark-forwarded-peer"].startswith("ipv4:127.0.0.1:")
    assert echo.metadata["x-tidemark-forwarded-user-agent"].startswith("ag?")
    assert echo.metadata["x-tidemark-forwarding"] == echo.forwarding.secret
    assert "cookie" not in echo.metadata


async def test_etags_are_headers(echo: Echo, http: HttpClient) -> None:
    echo.answers = [alert_service_pb2.GetAlertResponse(alert=alert_pb2.Alert(etag="7"))]
    assert (await http.get("/v1/alerts/a")).headers["ETag"] == '"7"'
    echo.answers = [alert_service_pb2.UpdateAlertResponse()]
    changed = await http.send("PATCH", "/v1/alerts/a", json={"displayName": "x"}, headers={"If-Match": '"7"'})
    assert changed.code == 200
    request = alert_service_pb2.UpdateAlertRequest.FromString(echo.request)
    assert (request.alert.alert_id, request.alert.etag) == ("a", "7")
    both = await http.send("PATCH", "/v1/alerts/a", json={"etag": "6"}, headers={"If-Match": '"7"'})
    assert (both.code, both.fields) == (400, ["alert.etag"])
    anything = await http.send("PATCH", "/v1/alerts/a", json={}, headers={"If-Match": "*"})
    assert anything.code == 200


async def test_retry_info_is_a_header() -> None:
    async with echoing() as (echo, http):
        detail, info = any_pb2.Any(), any_pb2.Any()
        detail.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=1, nanos=1)))
        info.Pack(error_details_pb2.ErrorInfo(reason="ERROR_REASON_OVERLOADED", domain="tidemark.dev"))
        echo.refused = status_pb2.Status(code=8, message="busy", details=[info, detail])
        refused = await http.send(
            "POST", "/v1/usage:evaluate", data=b"{" + b" " * 70_000, headers={"Content-Type": "application/json"}
        )
        assert (refused.code, refused.headers["Retry-After"]) == (429, "2")
        assert refused.error["status"] == "RESOURCE_EXHAUSTED"
        assert refused.error["message"] == "busy"


async def test_a_server_that_is_gone_is_unavailable_and_not_named() -> None:
    async with echoing() as (_, http):
        pass
    assert http.base
    async with echoing_front() as (echo, serving, http):
        serving._application._channels._target = "unix:/nowhere"
        serving._application._channels._unary = serving._application._channels._open()
        answer = await http.get(ALERTS)
        assert (answer.code, answer.error["status"]) == (503, "UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"
        assert "unix" not in answer.body.decode()
        assert "nowhere" not in answer.body.decode()
        assert echo.method == ""


async def test_large_answers_are_compressed_for_clients_that_understand_it(echo: Echo, http: HttpClient) -> None:
    echo.answers = [listed(200)]
    for accepted, coding in (("gzip, deflate", "gzip"), ("identity", None), ("gzip;q=0", None), ("*", "gzip")):
        async with http.opening("GET", ALERTS, headers={"Accept-Encoding": accepted}) as response:
            assert response.headers.get("Content-Encoding") == coding
            assert "Accept-Encoding" in response.headers["Vary"]
            assert len((await response.json())["alerts"]) == 200
    echo.answers = [listed(1)]
    async with http.opening("GET", ALERTS) as response:
        assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity"])
async def test_bodies_may_be_compressed(echo: Echo, http: HttpClient, coding: str) -> None:
    echo.answers = [alert_service_pb2.ArchiveAlertResponse()]
    for size in (0, 100_000):
        plain = json.dumps({"etag": "e" * size}).encode()
        encode: Any = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[coding]
        headers = {"Content-Type": "application/json", "Content-Encoding": coding}
        answer = await http.send("POST", "/v1/alerts/a:archive", data=encode(plain), headers=headers)
        assert answer.code == 200, answer.body
        assert len(alert_service_pb2.ArchiveAlertRequest.FromString(echo.request).etag) == size


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"{}" * 99, mtime=0)[:-9]], ids=["no gzip", "cut"])
async def test_a_body_that_is_not_what_it_says_is_refused(echo: Echo, http: HttpClient, data: bytes) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert (await http.send("POST", "/v1/alerts/a:archive", data=data, headers=headers)).code == 400


@pytest.mark.parametrize(
    ("target", "kind"), [("/v1/alerts/a:archive", "application/json"), ("/v1/events", "application/cloudevents+json")]
)
async def test_a_body_is_parsed_only_when_its_caller_is_known(target: str, kind: str) -> None:
    async with echoing() as (echo, http):
        for body in (b"{", b"{" + b" " * 70_000):
            assert (await http.send("POST", target, data=body, headers={"Content-Type": kind})).code == 400
        echo.refused = status_pb2.Status(code=16, message="no key")
        for body in (b"{", b"{" + b" " * 70_000):
            answer = await http.send("POST", target, data=body, headers={"Content-Type": kind})
            assert (answer.code, answer.error["message"]) == (401, "no key")


@pytest.mark.parametrize(
    ("target", "limit"), [("/v1/usage:evaluate", 5_000), ("/v1/usage:void", 1_000), ("/v1/usage:evaluate", 200_000)]
)
async def test_too_many_events_are_refused_with_the_reason_of_the_server(
    echo: Echo, http: HttpClient, target: str, limit: int
) -> None:
    most = min(limit, 5_000)
    events: list[Any] = [{}] * (limit + 1)
    answer = await http.post(target, {"batch": {"events": events}} if "evaluate" in target else {"events": events})
    assert (answer.code, answer.reason) == (400, "ERROR_REASON_BATCH_TOO_LARGE")
    assert answer.detail("ErrorInfo")["metadata"] == {"events": str(limit + 1), "limit": str(most)}


async def chunks(size: int) -> Any:
    for _ in range(size // 50_000):
        yield b" " * 50_000


async def test_bodies_have_a_limit_in_every_form(echo: Echo, http: HttpClient) -> None:
    limit = 1_000_000
    headers = {"Content-Type": "application/json"}
    target = "/v1/alerts/a:archive"
    bomb = gzip.compress(b" " * 20_000_000)
    for data, more in (
        (b" " * (limit + 1), {}),
        (chunks(2 * limit), {}),
        (bomb, {"Content-Encoding": "gzip"}),
    ):
        answer = await http.send("POST", target, data=data, headers={**headers, **more})
        assert (answer.code, answer.reason) == (413, "ERROR_REASON_MESSAGE_TOO_LARGE")
    echo.answers = [alert_service_pb2.ArchiveAlertResponse()]
    assert (await http.send("POST", target, data=b" " * limit, headers=headers)).code == 200


async def test_long_headers_and_many_are_refused(http: HttpClient) -> None:
    port = int(http.base.rpartition(":")[2])
    for head in (b"X: " + b"x" * 70_000 + b"\r\n", b"".join(b"X-%d: x\r\n" % n for n in range(300))):
        answer = await raw(port, b"GET /v1/alerts HTTP/1.1\r\n" + HEAD + head + b"\r\n")
        assert answer.split()[1] == b"431", answer[:200]
        assert b"Server: tidemark\r\n" in answer
    answer = await raw(port, b"GET /v1/alerts?x=" + b"x" * 70_000 + b" HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert answer.split()[1] == b"431", answer[:200]


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # of TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /v1/alerts HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/alerts HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /v1/alerts HTTP/1.1\r\nHost: a\r\n X: folded\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_http_are_answered_and_closed(
    http: HttpClient, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with within("the end of the connection"):
        answer = await raw(int(http.base.rpartition(":")[2]), data)
    assert answer.split()[1] == b"400", answer
    assert b"Traceback" not in answer
    assert b"Server: tidemark\r\n" in answer
    assert b"Cache-Control: no-store\r\n" in answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == 400
    assert caplog.text == ""


@pytest.mark.parametrize(
    "target",
    ["/v1/%00", "/v1/alerts/%ff", "/v1//alerts", "//v1/alerts", "/v1/alerts/../alerts", "/%2e%2e/", "*", "/v1/"],
)
async def test_odd_paths_are_answered(http: HttpClient, echo: Echo, target: str) -> None:
    port = int(http.base.rpartition(":")[2])
    answer = await raw(port, b"GET " + target.encode() + b" HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert answer.split()[1] in (b"400", b"404"), answer


async def test_bytes_that_are_no_text_are_answered(http: HttpClient) -> None:
    port = int(http.base.rpartition(":")[2])
    for line in (
        b"GET /v1/\xff HTTP/1.1",
        b"GET /v1/alerts?\xff=1 HTTP/1.1",
        b"GET /v1/alerts HTTP/1.1\r\nOrigin: \xff",
    ):
        answer = await raw(port, line + b"\r\n" + HEAD + b"\r\n")
        assert answer.split()[1] in (b"400", b"403", b"404"), answer


async def test_an_absolute_target_is_as_its_path(http: HttpClient, echo: Echo) -> None:
    echo.answers = [EMPTY]
    port = int(http.base.rpartition(":")[2])
    answer = await raw(port, b"GET http://localhost/v1/alerts?pageSize=3 HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert answer.split()[1] == b"200"
    assert alert_service_pb2.ListAlertsRequest.FromString(echo.request).page_size == 3


async def test_a_client_that_waits_before_its_body_is_asked_for_it(http: HttpClient, echo: Echo) -> None:
    port = int(http.base.rpartition(":")[2])
    head = (
        b"POST /v1/alerts/a:archive HTTP/1.1\r\n" + HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head % 2 + b"Expect: 100-continue\r\n\r\n")
    async with within("the question"):
        assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
    echo.answers = [alert_service_pb2.ArchiveAlertResponse()]
    writer.write(b"{}")
    assert b"200" in (await reader.read())
    writer.close()
    # One that would be refused is not asked.
    answer = await raw(port, head % 10_000_000 + b"Expect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_head_has_the_headers_of_get(echo: Echo, http: HttpClient) -> None:
    echo.answers = [listed(3)]
    get, head = await http.get(ALERTS), await http.send("HEAD", ALERTS)
    assert (head.code, head.body) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
    for page in ("/", "/openapi.json", "/healthz", "/readyz"):
        assert (await http.send("HEAD", page)).code == 200


async def test_pages_of_the_port(echo: Echo, http: HttpClient) -> None:
    landing = (await http.get("/")).json
    assert (landing["name"], landing["openapi"]) == ("Tidemark", "/openapi.json")
    assert (await http.post("/", {})).code == 405
    assert (await http.get("/openapi.json")).json["openapi"] == "3.1.0"
    assert (await http.get("/openapi.json", headers={"Accept-Encoding": "identity"})).json["info"]["title"]
    assert ((await http.get("/healthz")).code, (await http.get("/readyz")).code) == (200, 200)
    echo.is_alive = False
    assert ((await http.get("/healthz")).code, (await http.get("/readyz")).code) == (200, 503)
    echo.is_alive = True
    assert (await http.get("/v1/events")).code == 405
    assert (await http.get("/")).headers["Server"] == "tidemark"


async def test_pages_of_other_origins_may_not_call_unless_they_are_named(echo: Echo, http: HttpClient) -> None:
    echo.answers, echo.method = [EMPTY], ""
    refused = await http.post("/v1/alerts/a:archive", headers={"Origin": "https://attacker.example"})
    assert refused.code == 403
    assert echo.method == ""
    assert "Access-Control-Allow-Origin" not in refused.headers
    assert (await http.get(ALERTS, headers={"Origin": "null"})).code == 403
    own = await http.get(ALERTS, headers={"Origin": http.base})
    assert own.code == 200
    async with echoing(allow_origins=("https://app.example",)) as (named, client):
        named.answers = [EMPTY]
        headers = {"Origin": "https://app.example"}
        question = {**headers, "Access-Control-Request-Method": "GET"}
        allowed = await client.send("OPTIONS", ALERTS, headers=question)
        assert allowed.code == 204
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert "GET" in allowed.headers["Access-Control-Allow-Methods"]
        assert "authorization" in allowed.headers["Access-Control-Allow-Headers"]
        got = await client.get(ALERTS, headers=headers)
        assert (got.code, got.headers["Access-Control-Allow-Origin"]) == (200, "https://app.example")
        assert "Origin" in got.headers["Vary"]
        assert (await client.get("/v1/nothing", headers=headers)).headers["Access-Control-Allow-Origin"]
        assert (await client.get(ALERTS, headers={"Origin": "https://other.example"})).code == 403
        async with client.opening("GET", "/v1/notifications:watch", headers=headers) as stream:
            assert stream.headers["Access-Control-Allow-Origin"] == "https://app.example"
    async with echoing(allow_origins=("*",)) as (anyone, client):
        anyone.answers = [EMPTY]
        assert (await client.get(ALERTS, headers={"Origin": "null"})).headers["Access-Control-Allow-Origin"] == "*"
