"""Secrets at rest: sealed, bound to their place, and opened by older keys."""

import pytest

from webhooks.secret_box import (
    CannotOpen,
    SecretBox,
    credentials_context,
    secret_context,
)

OLD = ("2025", b"o" * 32)
NEW = ("2026", b"n" * 32)
PLACE = secret_context(1, "whe_a", 1)


def test_sealed_data_can_be_opened_and_does_not_contain_the_secret() -> None:
    box = SecretBox([NEW])
    sealed = box.seal(b"whsec_hush", PLACE)
    assert b"hush" not in sealed
    assert box.open(sealed, PLACE) == b"whsec_hush"


def test_the_same_secret_is_never_sealed_the_same_way() -> None:
    box = SecretBox([NEW])
    assert box.seal(b"x", PLACE) != box.seal(b"x", PLACE)


@pytest.mark.parametrize(
    "place", [secret_context(2, "whe_a", 1), secret_context(1, "whe_b", 1), secret_context(1, "whe_a", 2)]
)
def test_sealed_data_copied_to_another_row_does_not_open(place: str) -> None:
    box = SecretBox([NEW])
    with pytest.raises(CannotOpen, match="another row"):
        box.open(box.seal(b"x", PLACE), place)


def test_a_secret_does_not_open_as_credentials() -> None:
    box = SecretBox([NEW])
    with pytest.raises(CannotOpen):
        box.open(box.seal(b"x", PLACE), credentials_context(1, "whe_a"))


def test_every_changed_byte_is_noticed() -> None:
    box = SecretBox([NEW])
    sealed = box.seal(b"secret", PLACE)
    for index in range(len(sealed)):
        changed = sealed[:index] + bytes([sealed[index] ^ 1]) + sealed[index + 1 :]
        with pytest.raises(CannotOpen):
            box.open(changed, PLACE)


@pytest.mark.parametrize("length", [0, 1, 2, 6, 10, 18])
def test_truncated_sealed_data_does_not_open(length: int) -> None:
    box = SecretBox([NEW])
    with pytest.raises(CannotOpen):
        box.open(box.seal(b"secret", PLACE)[:length], PLACE)


def test_older_keys_open_and_the_first_one_seals() -> None:
    sealed = SecretBox([OLD]).seal(b"x", PLACE)
    both = SecretBox([NEW, OLD])
    assert both.open(sealed, PLACE) == b"x"
    assert not both.is_current(sealed)
    again = both.seal(b"x", PLACE)
    assert both.is_current(again)
    assert SecretBox([NEW]).open(again, PLACE) == b"x"


def test_a_missing_key_is_named() -> None:
    sealed = SecretBox([OLD]).seal(b"x", PLACE)
    with pytest.raises(CannotOpen, match="2025"):
        SecretBox([NEW]).open(sealed, PLACE)


def test_another_key_under_the_same_id_does_not_open() -> None:
    sealed = SecretBox([OLD]).seal(b"x", PLACE)
    with pytest.raises(CannotOpen):
        SecretBox([("2025", b"p" * 32)]).open(sealed, PLACE)


@pytest.mark.parametrize(
    "keys", [[], [("", b"k" * 32)], [("a" * 65, b"k" * 32)], [("a", b"short")], [("a", b"k" * 32), ("a", b"l" * 32)]]
)
def test_unusable_keys_are_refused(keys: list[tuple[str, bytes]]) -> None:
    with pytest.raises(ValueError):
        SecretBox(keys)
