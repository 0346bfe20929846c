"""The settings of the embedded server follow the memory and the disk of the machine."""

from pathlib import Path

import pytest

from store.embedded.settings import machine_of, settings_for
from store.postgres.recommended_settings import GB, MB, Machine

SIZES = ("shared_buffers", "effective_cache_size", "maintenance_work_mem", "max_wal_size", "min_wal_size")


def sizes(machine: Machine) -> dict[str, int]:
    """The settings that are sizes, in megabytes."""
    settings = settings_for(machine)
    assert all(settings[name].endswith("MB") for name in SIZES)
    return {name: int(settings[name].removesuffix("MB")) for name in SIZES}


def test_settings_use_a_part_of_an_ordinary_machine() -> None:
    found = sizes(Machine(memory=16 * GB, disk=100 * GB))
    assert found == {
        "shared_buffers": 4096,
        "effective_cache_size": 8192,
        "maintenance_work_mem": 512,
        "max_wal_size": 5120,
        "min_wal_size": 640,
    }


@pytest.mark.parametrize("memory", [256 * MB, 512 * MB, GB, 4 * GB, 64 * GB, 1024 * GB])
@pytest.mark.parametrize("disk", [GB, 10 * GB, 500 * GB, 20_000 * GB])
def test_settings_leave_most_of_the_machine_to_others(memory: int, disk: int) -> None:
    found = sizes(Machine(memory, disk))
    assert found["shared_buffers"] + found["maintenance_work_mem"] <= memory // MB // 3
    assert found["effective_cache_size"] <= memory // MB // 2
    assert found["min_wal_size"] < found["max_wal_size"] <= max(disk // MB // 20, 256)


def test_a_tiny_machine_gets_what_postgresql_accepts_and_a_huge_one_is_not_filled() -> None:
    tiny, huge = sizes(Machine(64 * MB, 100 * MB)), sizes(Machine(4096 * GB, 100_000 * GB))
    assert tiny["shared_buffers"] == 32
    assert tiny["min_wal_size"] >= 2 * 16  # two segments, the least that PostgreSQL accepts
    assert (huge["shared_buffers"], huge["max_wal_size"]) == (8 * 1024, 16 * 1024)


@pytest.mark.parametrize(
    ("name", "text", "limited"),
    [
        ("memory.max", "134217728\n", True),
        ("memory.max", "max\n", False),
        ("memory/memory.limit_in_bytes", "134217728\n", True),
        ("memory/memory.limit_in_bytes", "9223372036854771712\n", False),
    ],
)
def test_memory_is_that_of_the_container(tmp_path: Path, name: str, text: str, limited: bool) -> None:
    unlimited = machine_of(tmp_path, tmp_path).memory
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    assert machine_of(tmp_path, tmp_path).memory == (134217728 if limited else unlimited)
    assert unlimited > 134217728
