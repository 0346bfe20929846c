"""Exceptions as text that a log may hold: what happened and where, without the values of a database's rows.

The driver repeats rows in its errors: `Failing row contains (…)`, `Key (…)=(…)`, the line of a COPY, the value that
is no number; and SQLAlchemy the parameters of the statement. Among them are URLs, headers and secrets of endpoints.
"""

import re
import traceback
from collections.abc import Iterator
from typing import Any

# Of these classes of errors the first line names tables, columns and constraints, in quotes, and never a value:
# connections, transactions, constraints, conflicts, syntax, resources, interventions. Of every other one, quoted
# text is taken for a value.
_NAMING_CLASSES = ("08", "23", "25", "40", "42", "53", "55", "57")
_QUOTED = re.compile(r'".*"|\'.*\'|“.*”|«.*»|„.*“', re.DOTALL)
_PARENTHESES = re.compile(r"\(.*\)", re.DOTALL)
HIDDEN = "…"
_LONGEST_CHAIN = 20  # exceptions


def error_text(error: BaseException) -> str:
    """What `str(error)` says, or as much of it as holds no value of a row."""
    if _is_of_driver(error):
        return _driver_text(error)
    if _is_of_sqlalchemy(error):
        beneath = error.orig  # type: ignore[attr-defined]  # as _is_of_sqlalchemy has found
        return error_text(beneath) if beneath is not None else type(error).__name__
    if isinstance(error, BaseExceptionGroup):
        return f"{error.message} ({len(error.exceptions)} exceptions)"
    if (source := _repeated(error)) is not None:
        return error_text(source)
    return str(error)


def error_lines(error: BaseException) -> str:
    """The traceback of an exception and of those that led to it, as Python prints it but with `error_text`."""
    return "".join(_lines(error, set())).rstrip("\n")


def shown(value: Any) -> Any:
    """A value for a log line: exceptions as their text, anything else as it is."""
    return error_text(value) if isinstance(value, BaseException) else value


def _lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before, words = error.__cause__, "The above exception was the direct cause of the following exception:"
    if before is None and not error.__suppress_context__:
        before, words = error.__context__, "During handling of the above exception, another exception occurred:"
    if before is not None and id(before) not in seen and len(seen) < _LONGEST_CHAIN:
        yield from _lines(before, seen)
        yield f"\n{words}\n\n"
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_tb(error.__traceback__)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    text = error_text(error)
    yield f"{name}: {text}\n" if text else f"{name}\n"
    if isinstance(error, BaseExceptionGroup):
        for number, member in enumerate(error.exceptions, 1):
            if id(member) not in seen:
                yield f"--- exception {number} of the group ---\n"
                yield from _lines(member, seen)


def _driver_text(error: Any) -> str:
    state = error.sqlstate
    if state is None:
        # The driver's own words. Those about a value come with the value; the others are of connections.
        text = str(error).partition("\n")[0]
        return text if _is_operational(error) else f"{_QUOTED.sub(HIDDEN, _PARENTHESES.sub(HIDDEN, text))}"
    diagnosis = error.diag
    text = diagnosis.message_primary or ""
    if not state.startswith(_NAMING_CLASSES):
        text = _QUOTED.sub(HIDDEN, _PARENTHESES.sub(HIDDEN, text))
    where = {
        "table": diagnosis.table_name,
        "column": diagnosis.column_name,
        "constraint": diagnosis.constraint_name,
    }
    named = "".join(f", {key} {value}" for key, value in where.items() if value)
    return f"{text} [{state}{named}]"


# By their attributes: this room imports neither of the two packages.
def _is_of_driver(error: BaseException) -> bool:
    return hasattr(error, "sqlstate") and hasattr(error, "diag")


def _is_of_sqlalchemy(error: BaseException) -> bool:
    return hasattr(error, "statement") and hasattr(error, "params") and hasattr(error, "orig")


def _is_operational(error: BaseException) -> bool:
    return any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)


def _repeated(error: BaseException) -> BaseException | None:
    """The error of the driver whose text another exception has made its own, if there is one."""
    text = str(error)
    for source in (error.__cause__, error.__context__):
        if source is not None and (_is_of_driver(source) or _is_of_sqlalchemy(source)):
            beneath = getattr(source, "orig", None)
            for said in (str(source), "" if beneath is None else str(beneath)):
                if said and said in text:
                    return source
    return None
