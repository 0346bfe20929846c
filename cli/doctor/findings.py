"""What a check finds: how severe it is, the figure, why it matters, and what to do."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from cli.client.connection import Address
from runtime.configuration import Configuration
from store.postgres.database import DriverConnection


class Severity(StrEnum):
    """How severe a finding is. HINT: it works, and could be better. NOT_CHECKED: the check itself failed."""

    OK = "ok"
    HINT = "hint"
    NOT_CHECKED = "not checked"
    WARNING = "warning"
    PROBLEM = "problem"


# The exit code by the worst finding, as monitors expect it: 0 fine, 1 attention, 2 act now.
EXIT_CODES = {
    Severity.OK: 0,
    Severity.HINT: 0,
    Severity.NOT_CHECKED: 1,
    Severity.WARNING: 1,
    Severity.PROBLEM: 2,
}


@dataclass(frozen=True)
class Finding:
    """What a check found. found: with the figure. why: it matters. todo: with a command. Both are empty if ok."""

    severity: Severity
    found: str
    why: str = ""
    todo: str = ""


def ok(found: str) -> Finding:
    """A finding that needs no attention."""
    return Finding(Severity.OK, found)


def hint(found: str, why: str, todo: str) -> Finding:
    """A finding about something that works and could be better."""
    return Finding(Severity.HINT, found, why, todo)


def warning(found: str, why: str, todo: str) -> Finding:
    """A finding that needs attention soon."""
    return Finding(Severity.WARNING, found, why, todo)


def problem(found: str, why: str, todo: str) -> Finding:
    """A finding that needs action now."""
    return Finding(Severity.PROBLEM, found, why, todo)


def by_age(age: timedelta, found: str, why: str, todo: str, *, warn: timedelta, act: timedelta) -> Finding:
    """A finding whose severity follows from an age: below `warn` ok, from `act` on a problem."""
    if age < warn:
        return ok(found)
    return problem(found, why, todo) if age >= act else warning(found, why, todo)


class NotChecked(Exception):
    """A check cannot be done here; the message says why."""


@dataclass(frozen=True)
class Examined:
    """What the checks examine.

    url: of the database. connection: a session on it. now: by the clock of this machine. is_embedded: whether the
    database is the embedded one, whose disk is that of this machine. address: of a server; None: none was named.
    """

    settings: Configuration
    url: str
    connection: DriverConnection
    now: Callable[[], datetime]
    is_embedded: bool
    address: Address | None = None


@dataclass(frozen=True)
class Check:
    """One check. check_id: stable, for machines. title: what it checks. run: finds one or more findings."""

    check_id: str
    title: str
    run: Callable[[Examined], Awaitable[Sequence[Finding]]] = field(repr=False)


def shown_age(age: timedelta) -> str:
    """A duration for people: its two largest units."""
    seconds = int(age.total_seconds())
    if seconds < 0:
        return "0 s"
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, seconds = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((index for index, (number, _) in enumerate(parts) if number), 3)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number or unit == "s")


def shown_size(size: int) -> str:
    """A number of bytes for people."""
    for unit, bytes_of in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2)):
        if size >= bytes_of:
            return f"{size / bytes_of:.1f} {unit}"
    return f"{size / 1024:.0f} KiB"
