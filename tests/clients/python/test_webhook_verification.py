"""Verification of webhooks that are signed as the notifier signs them, and of those for tests of all clients."""

import base64
import json
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import NOON
from tidemark_client import WebhookNotVerified, WebhookVerifier
from webhooks.signature import SIGNATURE_HEADER, TIMESTAMP_HEADER, signed_headers
from webhooks.signing_keys import Scheme, new_signing_key, verification_key

BODY = json.dumps(
    {
        "id": "ntf_1",
        "type": "alert.reached",
        "timestamp": "2026-03-15T12:00:00.000001Z",
        "data": {"customer_id": "acme"},
    }
).encode()
SECRET, OTHER = new_signing_key(Scheme.HMAC_SHA256), new_signing_key(Scheme.HMAC_SHA256)
PAIR = new_signing_key(Scheme.ED25519)
VECTORS = json.loads((Path(__file__).parents[1] / "webhook_vectors.json").read_text())


def headers(*keys: str, body: bytes = BODY) -> dict[str, str]:
    return {name.title(): value for name, value in signed_headers(keys or (SECRET,), "ntf_1", NOON, body).items()}


def test_a_signed_request_gives_its_event() -> None:
    event = WebhookVerifier(SECRET).verify(headers(), BODY, NOON)
    assert (event.id, event.type, event.customer_id, event.sequence) == ("ntf_1", "alert.reached", "acme", 0)
    assert event.time == NOON + timedelta(microseconds=1)
    assert event.transitions == []
    assert event.value is None


@pytest.mark.parametrize("signing", [(SECRET,), (OTHER,), (OTHER, SECRET), (PAIR,), (PAIR, OTHER)])
def test_any_key_and_any_signature_is_enough(signing: tuple[str, ...]) -> None:
    verifier = WebhookVerifier([SECRET, OTHER, verification_key(PAIR)])
    assert verifier.verify(headers(*signing), BODY, NOON).id == "ntf_1"


@pytest.mark.parametrize("change", ["body", "id", "time", "key", "scheme"])
def test_a_changed_request_is_refused(change: str) -> None:
    sent, body, key = headers(), BODY, SECRET
    if change == "body":
        body = BODY.replace(b"acme", b"evil")
    elif change == "id":
        sent["Webhook-Id"] = "ntf_2"
    elif change == "time":
        sent["Webhook-Timestamp"] = str(int(sent["Webhook-Timestamp"]) + 1)
    elif change == "key":
        key = OTHER
    else:
        sent["Webhook-Signature"] = sent["Webhook-Signature"].replace("v1,", "v2,")
    with pytest.raises(WebhookNotVerified, match="no signature fits"):
        WebhookVerifier(key).verify(sent, body, NOON)


@pytest.mark.parametrize("away", [timedelta(minutes=5, seconds=1), -timedelta(minutes=5, seconds=1)])
def test_an_old_request_and_one_of_the_future_are_refused(away: timedelta) -> None:
    with pytest.raises(WebhookNotVerified, match="seconds away"):
        WebhookVerifier(SECRET).verify(headers(), BODY, NOON + away)
    assert WebhookVerifier(SECRET, tolerance=timedelta(hours=1)).verify(headers(), BODY, NOON + away)


@pytest.mark.parametrize("timestamp", ["", "now", "1e9", "٣", "9" * 400])
def test_a_bad_time_is_refused(timestamp: str) -> None:
    with pytest.raises(WebhookNotVerified):
        WebhookVerifier(SECRET).verify({**headers(), "Webhook-Timestamp": timestamp}, BODY, NOON)


@pytest.mark.parametrize("signature", ["", "v1", "v1,", "v1,!!", "v1a,AAAA", " ", "v1,AAAA " * 100])
def test_a_bad_signature_is_refused(signature: str) -> None:
    assert {SIGNATURE_HEADER, TIMESTAMP_HEADER} <= {name.lower() for name in headers()}
    with pytest.raises(WebhookNotVerified):
        WebhookVerifier([SECRET, verification_key(PAIR)]).verify(
            {**headers(), "Webhook-Signature": signature}, BODY, NOON
        )


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b"\xff", b'{"type": 1}', b"[" * 100_000])
def test_a_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookNotVerified, match="no event"):
        WebhookVerifier(SECRET).verify(headers(body=body), body, NOON)


@pytest.mark.parametrize("keys", [[], ["secret"], ["whsec_"], ["whsec_!"], ["whpk_AAAA"], "whsk_AAAA"])
def test_a_bad_key_is_refused_without_showing_it(keys: list[str] | str) -> None:
    with pytest.raises(ValueError) as bad:
        WebhookVerifier(keys)
    assert "AAAA" not in str(bad.value)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_requests_that_every_client_judges_in_the_same_way(case: dict[str, Any]) -> None:
    verifier = WebhookVerifier(case["keys"])
    body, time = base64.b64decode(case["body_base64"]), datetime.fromisoformat(case["time"])
    if "refused" in case:
        with pytest.raises(WebhookNotVerified, match=case["refused"]):
            verifier.verify(case["headers"], body, time)
        return
    event, expected = verifier.verify(case["headers"], body, time), case["event"]
    assert {name: getattr(event, name) for name in ("id", "type", "customer_id", "alert_id", "sequence")} == {
        name: expected[name] for name in ("id", "type", "customer_id", "alert_id", "sequence")
    }
    assert (event.value, event.previous_value) == (Decimal(expected["value"]), Decimal(expected["previous_value"]))
    assert [one.level for one in event.transitions] == [Decimal(level) for level in expected["levels"]]


@pytest.mark.parametrize("keys", VECTORS["bad_keys"], ids=str)
def test_keys_that_every_client_refuses(keys: list[str]) -> None:
    with pytest.raises(ValueError):
        WebhookVerifier(keys)
