"""Signatures: the published vectors, a foreign verifier, and secrets that are not secrets."""

import base64
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from webhooks.signature import sign, sign_asymmetric, signed_headers
from webhooks.signing_keys import MalformedKey, private_key, signing_secret

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIME = datetime.fromtimestamp(1614265330, UTC)
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


PRIVATE_KEY = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
ASYMMETRIC_SIGNATURE = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="


def secret_of(size: int) -> str:
    return "whsec_" + base64.b64encode(random.Random(size).randbytes(size)).decode()


def test_signature_is_that_of_the_published_vector() -> None:
    assert sign(signing_secret(SECRET), ID, 1614265330, BODY) == SIGNATURE


def test_asymmetric_signature_is_that_of_the_published_vector() -> None:
    assert sign_asymmetric(private_key(PRIVATE_KEY), ID, 1614265330, BODY) == ASYMMETRIC_SIGNATURE


def test_secrets_of_both_kinds_sign_side_by_side_in_their_order() -> None:
    headers = signed_headers([PRIVATE_KEY, SECRET], ID, TIME, BODY)
    assert headers["webhook-signature"] == f"{ASYMMETRIC_SIGNATURE} {SIGNATURE}"


def test_a_seed_alone_is_a_private_key() -> None:
    seed = base64.b64encode(base64.b64decode(PRIVATE_KEY.removeprefix("whsk_"))[:32]).decode()
    assert sign_asymmetric(private_key(f"whsk_{seed}"), ID, 1614265330, BODY) == ASYMMETRIC_SIGNATURE


@pytest.mark.parametrize("secret", ["whsk_", "whsk_!", "whsk_dG9vIHNob3J0", SECRET])
def test_a_malformed_private_key_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(MalformedKey) as raised:
        private_key(secret)
    assert secret not in str(raised.value) or secret == "whsk_"


def test_headers_of_the_published_vector() -> None:
    assert signed_headers([SECRET], ID, TIME, BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


def test_a_part_of_a_second_does_not_show_in_the_timestamp() -> None:
    headers = signed_headers([SECRET], ID, TIME + timedelta(milliseconds=999), BODY)
    assert headers["webhook-timestamp"] == "1614265330"
    assert headers["webhook-signature"] == SIGNATURE


@given(st.integers(24, 64), st.binary(max_size=2_000))
def test_a_foreign_verifier_accepts_what_is_signed(size: int, body: bytes) -> None:
    # The verifier parses the body as JSON after it has checked the signature.
    text = base64.b64encode(body).decode()
    payload = f'{{"data": "{text}"}}'
    headers = signed_headers([secret_of(size)], "ntf_abc", datetime.now(UTC), payload.encode())
    assert Webhook(secret_of(size)).verify(payload, headers) == {"data": text}


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "ntf_other"},
        {"webhook-timestamp": str(int(datetime.now(UTC).timestamp()) - 1)},
        {"webhook-signature": SIGNATURE},
    ],
)
def test_a_foreign_verifier_refuses_what_was_changed(change: dict[str, str]) -> None:
    headers = signed_headers([SECRET], "ntf_abc", datetime.now(UTC), BODY) | change
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(BODY.decode(), headers)


def test_each_of_several_secrets_verifies_and_the_newest_comes_first() -> None:
    new, old = secret_of(32), secret_of(24)
    headers = signed_headers([new, old], "ntf_abc", datetime.now(UTC), BODY)
    for secret in (new, old):
        assert Webhook(secret).verify(BODY.decode(), headers) == {"test": 2432232314}
    timestamp = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"].split(" ")[0] == sign(signing_secret(new), "ntf_abc", timestamp, BODY)


def test_nothing_is_sent_unsigned() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        signed_headers([], ID, TIME, BODY)


@pytest.mark.parametrize(
    ("secret", "complaint"),
    [
        ("", "begin with whsec_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "begin with whsec_"),
        ("whsec_not base64!", "base64"),
        ("whsec_ééé", "base64"),
        (secret_of(23), "holds 23"),
        (secret_of(65), "holds 65"),
    ],
)
def test_a_malformed_secret_is_refused_without_being_shown(secret: str, complaint: str) -> None:
    with pytest.raises(MalformedKey, match=complaint) as caught:
        signing_secret(secret)
    key = secret.removeprefix("whsec_")
    assert not key or key not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
