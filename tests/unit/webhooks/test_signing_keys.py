"""The text forms of signing keys: made, read, and what their receivers verify with."""

import base64

import pytest

from webhooks.signature import sign_asymmetric, signed_content
from webhooks.signing_keys import (
    NEW_SECRET_BYTES,
    MalformedKey,
    Scheme,
    new_signing_key,
    private_key,
    signing_secret,
    verification_key,
)


def test_a_new_secret_signs_and_verifies_with_the_same_bytes() -> None:
    key = new_signing_key(Scheme.HMAC_SHA256)
    assert verification_key(key) == key
    assert signing_secret(key) == base64.b64decode(key.removeprefix("whsec_"))
    assert len(signing_secret(key)) == NEW_SECRET_BYTES


def test_a_new_private_key_is_verified_with_its_public_key() -> None:
    key = new_signing_key(Scheme.ED25519)
    shown = verification_key(key)
    assert shown.startswith("whpk_")
    assert private_key(key).public_key().public_bytes_raw() == base64.b64decode(shown.removeprefix("whpk_"))
    assert sign_asymmetric(private_key(key), "ntf_1", 1, b"{}").startswith("v1a,")
    private_key(key).public_key().verify(private_key(key).sign(signed_content("ntf_1", 1, b"{}")), b"ntf_1.1.{}")


@pytest.mark.parametrize("scheme", Scheme)
def test_no_two_new_keys_are_equal(scheme: Scheme) -> None:
    assert new_signing_key(scheme) != new_signing_key(scheme)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(MalformedKey, match="holds 1"):
        signing_secret("whsec_YQ==")
