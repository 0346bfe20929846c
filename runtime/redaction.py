"""Exceptions as text for logs: what happened and where, without values of the database.

The messages of the driver contain rows: `Failing row contains (…)`, `Key (…)=(…)`, the line of a COPY, a value that
is not a number. Those of SQLAlchemy contain the parameters of the statement. URLs, headers and secrets of endpoints
are among these values.
"""

import re
import traceback
from collections.abc import Iterator
from typing import Any

# In these classes of errors, the first line contains the names of tables, columns and constraints in quotes, and no
# value: connections, transactions, constraints, conflicts, syntax, resources, interventions. In all other classes,
# quoted text can be a value.
_NAMING_CLASSES = ("08", "23", "25", "40", "42", "53", "55", "57")
_QUOTED = re.compile(r'".*"|\'.*\'|“.*”|«.*»|„.*“', re.DOTALL)
_PARENTHESES = re.compile(r"\(.*\)", re.DOTALL)
HIDDEN = "…"
_LONGEST_CHAIN = 20  # exceptions


def error_text(error: BaseException) -> str:
    """The message of an error, without values of a row."""
    if _is_of_driver(error):
        return _driver_text(error)
    if _is_of_sqlalchemy(error):
        beneath = error.orig  # type: ignore[attr-defined]  # as _is_of_sqlalchemy has found
        return error_text(beneath) if beneath is not None else type(error).__name__
    if isinstance(error, BaseExceptionGroup):
        return f"{error.message} ({len(error.exceptions)} exceptions)"
    if (source := _quoted_driver_error(error)) is not None:
        return error_text(source)
    return str(error)


def error_lines(error: BaseException) -> str:
    """The traceback of an exception and of its causes, as Python prints it, but with messages from `error_text`."""
    return "".join(_lines(error, set())).rstrip("\n")


def redacted(value: Any) -> Any:
    """A value for a log line: the `error_text` of an exception, any other value unchanged."""
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
        # Messages of the driver itself. Those of OperationalError are about connections; others can contain a value.
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


# Recognized by their attributes, because `runtime` imports neither of the two packages.
def _is_of_driver(error: BaseException) -> bool:
    return hasattr(error, "sqlstate") and hasattr(error, "diag")


def _is_of_sqlalchemy(error: BaseException) -> bool:
    return hasattr(error, "statement") and hasattr(error, "params") and hasattr(error, "orig")


def _is_operational(error: BaseException) -> bool:
    return any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)


def _quoted_driver_error(error: BaseException) -> BaseException | None:
    """The error of the driver whose message this exception contains, if there is one."""
    text = str(error)
    for source in (error.__cause__, error.__context__):
        if source is not None and (_is_of_driver(source) or _is_of_sqlalchemy(source)):
            beneath = getattr(source, "orig", None)
            for message in (str(source), "" if beneath is None else str(beneath)):
                if message and message in text:
                    return source
    return None
