"""The parts of `tidemark doctor` that need no database: severities, exit codes, texts, and the page of its checks."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from cli.doctor.checks import CHECKS, CONNECTION
from cli.doctor.examination import CheckResult, exit_code
from cli.doctor.findings import EXIT_CODES, Severity, by_age, hint, ok, problem, shown_age, shown_size, warning

PAGE = Path(__file__).resolve().parents[3] / "docs" / "doctor.md"


def test_the_page_lists_every_check_in_its_order() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| (.*) \|$", PAGE.read_text().partition("## Checks")[2], re.MULTILINE)
    assert rows == [(CONNECTION, "a connection to the database"), *((one.check_id, one.title) for one in CHECKS)]


def test_the_page_lists_every_severity_with_its_exit_code() -> None:
    rows = re.findall(r"^\| `([a-z ]+)` \| .* \| ([0-9]) \|$", PAGE.read_text(), re.MULTILINE)
    assert {name: int(code) for name, code in rows} == {one.value: EXIT_CODES[one] for one in Severity}


def test_no_two_checks_have_the_same_name() -> None:
    names = [one.check_id for one in CHECKS]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([], 0),
        ([ok("fine")], 0),
        ([ok("fine"), hint("a", "b", "c")], 0),
        ([hint("a", "b", "c"), warning("a", "b", "c")], 1),
        ([warning("a", "b", "c"), problem("a", "b", "c")], 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst_finding(findings: list[object], code: int) -> None:
    assert exit_code([CheckResult("a", "b", findings)]) == code  # type: ignore[arg-type]


def test_an_age_decides_the_severity() -> None:
    def severity(minutes: int) -> Severity:
        age = timedelta(minutes=minutes)
        return by_age(age, "f", "w", "t", warn=timedelta(minutes=1), act=timedelta(minutes=10)).severity

    assert [severity(0), severity(1), severity(10)] == [Severity.OK, Severity.WARNING, Severity.PROBLEM]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3_660, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_are_shown_with_two_units(seconds: int, text: str) -> None:
    assert shown_age(timedelta(seconds=seconds)) == text


def test_sizes_are_shown_with_their_unit() -> None:
    assert [shown_size(2**10), shown_size(3 * 2**20), shown_size(5 * 2**30)] == ["1 KiB", "3.0 MiB", "5.0 GiB"]
