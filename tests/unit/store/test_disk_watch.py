"""The disk of an embedded server: when its free space is reported."""

from pathlib import Path

import pytest

from store.embedded import disk
from store.embedded.disk import GB, MB, DiskWatch, least_free


class Reports:
    """The free bytes of each report; negative, when the disk runs full."""

    def __init__(self) -> None:
        self.found: list[int] = []

    def disk_runs_full(self, free: int, total: int) -> None:
        self.found.append(-free)

    def disk_has_space(self, free: int) -> None:
        self.found.append(free)


@pytest.mark.parametrize(
    ("total", "limit"), [(2 * GB, 512 * MB), (100 * GB, 10 * GB), (10_000 * GB, 32 * GB), (0, 512 * MB)]
)
def test_limit_follows_the_size_of_the_disk(total: int, limit: int) -> None:
    assert least_free(total) == limit


def test_disk_is_reported_when_it_runs_full_at_each_half_and_when_it_has_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(disk, "CHECK_INTERVAL", 0.0)
    free = iter([50, 9, 8, 5, 4, 11, 12, 9])
    reports = Reports()
    watch = DiskWatch(Path("/data"), reports, lambda path: (100 * GB, next(free) * GB))
    for _ in range(8):
        watch.check()
    # 11 of 100 is above the limit, and not enough above it.
    assert [found // GB for found in reports.found] == [-9, -4, 12, -9]


def test_disk_that_cannot_be_asked_is_not_reported() -> None:
    def usage(path: Path) -> tuple[int, int]:
        raise FileNotFoundError(path)

    reports = Reports()
    DiskWatch(Path("/data"), reports, usage).check()
    assert reports.found == []


def test_disk_is_asked_once_in_an_interval() -> None:
    asked = []

    def usage(path: Path) -> tuple[int, int]:
        asked.append(path)
        return 100 * GB, GB

    reports = Reports()
    watch = DiskWatch(Path("/data"), reports, usage)
    watch.check()
    watch.check()
    assert (len(asked), reports.found) == (1, [-GB])
