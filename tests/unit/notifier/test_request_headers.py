"""The headers of an attempt: whose they are, and what an endpoint may not set."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from notifier.request_headers import HEADERS, request_headers
from store.deliveries.claims import Claim, ClaimedEndpoint, StoredSecret
from webhooks.secret_box import CannotOpen, SecretBox, credentials_context, secret_context
from webhooks.signature import signed_headers

NOW = datetime(2026, 11, 27, 12, tzinfo=UTC)
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b"{}"
SIGNED = signed_headers([SECRET], "ntf_1", NOW, BODY)
BOX = SecretBox([("k", bytes(32))])


def a_claim(
    headers: dict[str, str] | None = None,
    credentials: bytes | None = None,
    secrets: tuple[StoredSecret, ...] = (StoredSecret(1, "v1", SECRET, None),),
) -> Claim:
    endpoint = ClaimedEndpoint(
        1, "whe_1", "https://example.com", secrets, tuple((headers or {}).items()), credentials
    )
    return Claim(endpoint, "whd_1", "ntf_1", uuid.uuid4(), "AUTOMATIC", 0, 0, timedelta(0), "{}")


def test_without_anything_of_its_own_an_endpoint_gets_ours() -> None:
    request = request_headers(a_claim(), None, NOW, BODY)
    assert request.headers == HEADERS | SIGNED
    assert request.secret_sequences == (1,)


@pytest.mark.parametrize("name", ["Accept", "accept", "ACCEPT"])
def test_a_header_of_ours_that_an_endpoint_may_set_is_sent_once(name: str) -> None:
    request = request_headers(a_claim({name: "text/plain"}), None, NOW, BODY)
    assert request.headers == HEADERS | {"Accept": "text/plain"} | SIGNED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", "evil.example.com"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("User-Agent", "other"),
        ("Webhook-Id", "forged"),
        ("X-Own", "a\r\nHost: evil.example.com"),
        ("X-Own\n", "a"),
    ],
)
def test_headers_that_an_endpoint_must_not_set_are_left_out(name: str, value: str) -> None:
    request = request_headers(a_claim({name: value, "X-Team": "billing"}), None, NOW, BODY)
    assert request.headers == HEADERS | {"X-Team": "billing"} | SIGNED


def test_credentials_replace_an_endpoints_own_header_however_it_is_written() -> None:
    sealed = BOX.seal(b"Bearer token", credentials_context(1, "whe_1"))
    request = request_headers(a_claim({"aUTHORIZATION": "none"}, sealed), BOX, NOW, BODY)
    assert request.headers == HEADERS | {"Authorization": "Bearer token"} | SIGNED


def test_an_endpoint_that_changed_is_sent_what_it_is_now() -> None:
    rotated = "whsec_" + "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0"
    sealed = BOX.seal(rotated.encode(), secret_context(1, "whe_1", 2))
    both = (StoredSecret(2, "v1", None, sealed), StoredSecret(1, "v1", SECRET, None))
    for claim, secrets, own in (
        (a_claim({"X-A": "1"}), [SECRET], {"X-A": "1"}),
        (a_claim({"X-A": "2"}), [SECRET], {"X-A": "2"}),
        (a_claim({"X-A": "2"}, secrets=both), [rotated, SECRET], {"X-A": "2"}),
        (a_claim({"X-A": "1"}), [SECRET], {"X-A": "1"}),
    ):
        request = request_headers(claim, BOX, NOW, BODY)
        assert request.headers == HEADERS | own | signed_headers(secrets, "ntf_1", NOW, BODY)


def test_nothing_is_sent_unsigned() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        request_headers(a_claim(secrets=()), None, NOW, BODY)
    sealed = StoredSecret(1, "v1", None, SecretBox([("lost", bytes(32))]).seal(b"x", secret_context(1, "whe_1", 1)))
    for box in (None, BOX):
        with pytest.raises(CannotOpen):
            request_headers(a_claim(secrets=(sealed,)), box, NOW, BODY)
