"""The master keys of a process: the configured ones, and one key file for all processes of an embedded database."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.configuration import Configuration
from runtime.master_keys import KEY_FILE, KeyFileUnusable, local_key, master_keys
from webhooks.secret_box import SecretBox, box_of, secret_context

NEW = ("2026", b"n" * 32)
PLACE = secret_context(1, "whe_a", 1)


def in_directory(directory: Path, *configured: tuple[str, bytes]) -> list[tuple[str, bytes]]:
    return master_keys(Configuration(data_directory=directory, secret_keys=configured))


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
    keys = master_keys(Configuration(database_url="postgresql://db/tidemark", data_directory=tmp_path))
    assert keys == []
    assert box_of(keys) is None
    assert not any(tmp_path.iterdir())
    assert in_directory(tmp_path) == [local_key(tmp_path)]


def test_configured_keys_seal_and_the_local_one_still_opens(tmp_path: Path) -> None:
    assert in_directory(tmp_path, NEW) == [NEW]
    local = local_key(tmp_path)
    assert in_directory(tmp_path, NEW) == [NEW, local]
    assert in_directory(tmp_path, local) == [local]
    box = SecretBox(in_directory(tmp_path, NEW))
    assert box.key_id == "2026"
    assert box.open(SecretBox([local]).seal(b"x", PLACE), PLACE) == b"x"
