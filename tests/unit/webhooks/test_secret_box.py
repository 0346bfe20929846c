"""Secrets at rest: sealed, bound to their place, opened by older keys, and one key file for all processes."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from webhooks.secret_box import (
    KEY_FILE,
    CannotOpen,
    KeyFileUnusable,
    SecretBox,
    box_of,
    credentials_context,
    keys_of,
    local_key,
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


def test_the_local_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    key = local_key(directory)
    assert local_key(directory) == key
    assert stat.S_IMODE((directory / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in directory.iterdir()] == [KEY_FILE]


def test_processes_that_start_together_share_one_local_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(local_key, [tmp_path] * 32))
    assert len(keys) == 1


def test_a_damaged_key_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("bm90IGEga2V5\n")
    with pytest.raises(KeyFileUnusable, match=KEY_FILE):
        local_key(tmp_path)
    assert (tmp_path / KEY_FILE).read_text() == "bm90IGEga2V5\n"


def test_without_keys_the_embedded_database_has_one_and_others_have_none(tmp_path: Path) -> None:
    assert box_of([], None) is None
    assert keys_of([], tmp_path) == [local_key(tmp_path)]


def test_configured_keys_seal_and_the_local_one_still_opens(tmp_path: Path) -> None:
    assert keys_of([NEW], tmp_path) == [NEW]
    local = local_key(tmp_path)
    assert keys_of([NEW], tmp_path) == [NEW, local]
    assert keys_of([local], tmp_path) == [local]
    box = box_of([NEW], tmp_path)
    assert box is not None
    assert box.key_id == "2026"
    assert box.open(SecretBox([local]).seal(b"x", PLACE), PLACE) == b"x"
