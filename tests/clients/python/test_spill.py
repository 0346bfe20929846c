"""The files of usage that no server has taken yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tidemark_client.usage.spill import SpillFolder, SpillFull, SpillInUse


@contextmanager
def opened(folder: Path, max_bytes: int = 1 << 20, segment_bytes: int = 1 << 16) -> Iterator[SpillFolder]:
    spill = SpillFolder(folder, max_bytes, segment_bytes)
    try:
        yield spill
    finally:
        spill.close()


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "lock")


def message(number: int) -> list[bytes]:
    return [f"{number}-{index}".encode() * 10 for index in range(3)]


def test_records_survive_in_their_order_until_they_are_done(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=200) as spill:
        first = spill.append([message(1), message(2)])
        (third,) = spill.append([message(3)])
        assert [spill.read(record) for record in (*first, third)] == [message(1), message(2), message(3)]
    with opened(tmp_path) as spill:
        records = spill.load()
        assert [spill.read(record) for record in records] == [message(1), message(2), message(3)]
        assert [record.events for record in records] == [3, 3, 3]
        (fourth,) = spill.append([message(4)])
        assert len(files(tmp_path)) == 3
        for record in records:
            spill.done(record)
        assert len(files(tmp_path)) == 1
        spill.done(fourth)
    assert files(tmp_path) == []
    with opened(tmp_path) as spill:
        assert spill.load() == []


def test_a_writer_may_append_before_it_has_read_what_an_earlier_one_left(tmp_path: Path) -> None:
    with opened(tmp_path) as spill:
        spill.append([message(1), message(2)])
    with opened(tmp_path, segment_bytes=200) as spill:
        (third,) = spill.append([message(3)])
        earlier = spill.load()
        spill.append([message(4)])
        (fifth,) = spill.append([message(5)])
        assert [spill.read(record) for record in earlier] == [message(1), message(2)]
        assert [spill.read(record) for record in (third, fifth)] == [message(3), message(5)]
        for record in earlier:
            spill.done(record)
        assert len(files(tmp_path)) == 2
    with opened(tmp_path) as spill:
        assert [spill.read(record) for record in spill.load()] == [message(3), message(4), message(5)]


def test_an_empty_file_of_an_earlier_writer_is_removed_and_a_new_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "000000000001.usage").touch()
    with opened(tmp_path) as spill:
        (record,) = spill.append([message(1)])
        assert spill.load() == []
        assert spill.read(record) == message(1)
        assert files(tmp_path) == ["000000000002.usage"]


def test_the_bound_holds_before_anything_is_written(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=300) as spill:
        (record,) = spill.append([message(1)])
        with pytest.raises(SpillFull, match="at most 300"):
            spill.append([message(number) for number in range(5)])
        assert spill.size < 300
        assert spill.read(record) == message(1)


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(SpillInUse, match="another writer"):
        SpillFolder(tmp_path, 1 << 20)
    with opened(tmp_path):
        pass


@pytest.mark.parametrize("damage", ["cut", "changed", "header", "length"])
def test_a_damaged_record_ends_its_segment_and_hides_no_record_before_it(damage: str, tmp_path: Path) -> None:
    with opened(tmp_path) as spill:
        _, second = spill.append([message(1), message(2)])
    (path,) = tmp_path.glob("*.usage")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[-1:]
    elif damage == "changed":
        content[second.offset + 5] ^= 1
    elif damage == "header":
        del content[second.offset - 3 :]
    else:
        content[second.offset - 8] = 0xFF
    path.write_bytes(content)
    with opened(tmp_path) as spill:
        (found,) = spill.load()
        assert spill.read(found) == message(1)
    (damaged,) = tmp_path.glob("*.damaged")
    assert damaged.read_bytes()
