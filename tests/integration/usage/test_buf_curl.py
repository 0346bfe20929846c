"""buf curl, a client that was not written for this service and uses server reflection only."""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

from google.rpc import error_details_pb2

from runtime.clock import ManualClock
from tests.support.usage.caller import DEADLINE, Caller, ShortTransition

BUF = Path(sys.executable).parent / "buf"


class Failed(Exception):
    """The program ended with an exit code other than 0; the text is its standard error."""


async def buf_curl(
    caller: Caller, *arguments: str, path: str = "", requests: list[dict[str, Any]] | None = None
) -> str:
    """Calls the server over h2c; several requests are sent in one stream."""
    process = await asyncio.create_subprocess_exec(
        BUF,
        "curl",
        "--http2-prior-knowledge",
        "--protocol",
        "grpc",
        "--header",
        f"authorization: Bearer {caller.key}",
        *arguments,
        *(["--data", "@-"] if requests is not None else []),
        f"http://127.0.0.1:{caller.server.port}{path}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    data = "\n".join(json.dumps(request) for request in requests or []).encode()
    async with asyncio.timeout(DEADLINE):
        out, error = await process.communicate(data)
    if process.returncode:
        raise Failed(error.decode())
    return out.decode()


async def call(caller: Caller, method: str, *requests: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers of a method of AlertService, parsed."""
    text = await buf_curl(caller, path=f"/tidemark.v1.AlertService/{method}", requests=list(requests))
    answers = []
    while text := text.strip():
        answer, end = json.JSONDecoder().raw_decode(text)
        answers.append(answer)
        text = text[end:]
    return answers


def event(clock: ManualClock, event_id: str, quantity: str) -> dict[str, Any]:
    return {
        "eventId": event_id,
        "customerId": "acme",
        "metricId": "calls",
        "quantity": quantity,
        "eventTime": clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


ALERT = {
    "display_name": "foreign",
    "scope": {"allCustomers": {}},
    "usageThresholdReached": {"metricId": "calls"},
    "thresholds": [{"value": "10", "notifyOn": ["TRANSITION_KIND_REACHED", "TRANSITION_KIND_RESOLVED"]}],
}


async def test_buf_curl_lists_the_methods(caller: Caller) -> None:
    listed = (await buf_curl(caller, "--list-methods")).split()
    assert "tidemark.v1.AlertService/EvaluateUsage" in listed
    assert "tidemark.v1.AlertService/CreateAlert" in listed
    assert "grpc.health.v1.Health/Check" in listed


async def test_buf_curl_creates_an_alert_and_sends_a_batch(caller: Caller, clock: ManualClock) -> None:
    [created] = await call(caller, "CreateAlert", {"alert": ALERT})
    batch = {"events": [event(clock, "e1", "4"), event(clock, "e2", "NaN"), event(clock, "e3", "6.5")]}
    [response] = await call(caller, "EvaluateUsageBatch", {"batch": batch})
    answer = response["outcome"]
    assert answer["accepted"] == 2
    assert [one["index"] for one in answer["rejected"]] == [1]
    [transition] = answer["transitions"]
    assert transition["alertId"] == created["alert"]["alertId"]
    assert (transition["level"], transition["value"], transition["eventId"]) == ("10", "10.5", "e3")
    [listed] = await call(caller, "ListAlerts", {})
    assert [one["displayName"] for one in listed["alerts"]] == ["foreign"]


async def test_buf_curl_streams_requests_and_answers(caller: Caller, clock: ManualClock) -> None:
    await call(caller, "CreateAlert", {"alert": ALERT})
    requests = [
        {"batch": {"batchId": f"b{number}", "events": [event(clock, f"e{number}", quantity)], "includeGauges": True}}
        for number, quantity in enumerate(["6", "6", "-9", "1"])
    ]
    answers = [response["outcome"] for response in await call(caller, "EvaluateUsage", *requests)]
    assert [(one["batchId"], one["accepted"]) for one in answers] == [(f"b{number}", 1) for number in range(4)]
    assert answers[-1]["gauges"][0]["value"] == "4"
    kinds = [[transition["kind"] for transition in one.get("transitions", [])] for one in answers]
    assert kinds == [[], ["TRANSITION_KIND_REACHED"], ["TRANSITION_KIND_RESOLVED"], []]
    assert [crossing for one in await caller.notifications() for crossing in one.transitions] == [
        ShortTransition("REACHED", "10", "6", "12", "e1"),
        ShortTransition("RESOLVED", "10", "12", "3", "e2"),
    ]


async def test_buf_curl_reads_an_error_with_its_details(caller: Caller) -> None:
    try:
        await call(caller, "EvaluateUsageBatch", {"batch": {"batchId": "x" * 200, "events": [{}]}})
    except Failed as failed:
        said = json.loads(str(failed))
    else:
        raise AssertionError("the call was not refused")
    assert said["code"] == "invalid_argument"
    assert "batch.batch_id" in said["message"]
    details = {detail["type"]: base64.b64decode(detail["value"] + "==") for detail in said["details"]}
    info = error_details_pb2.ErrorInfo.FromString(details["google.rpc.ErrorInfo"])
    assert (info.reason, info.domain) == ("ERROR_REASON_INVALID_FIELD", "tidemark.dev")
    bad = error_details_pb2.BadRequest.FromString(details["google.rpc.BadRequest"])
    assert [violation.field for violation in bad.field_violations] == ["batch.batch_id"]
