"""The fields that each log line gets from the work that it belongs to: a call, a commit, an attempt of a delivery."""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Protocol

from runtime.tracing.current import current_trace_id


class Subject(Protocol):
    """Work that has log lines. It is asked for its fields only when a line is written."""

    def log_fields(self) -> Mapping[str, Any]:
        """The fields of its lines, such as the id of its request."""


_subject: ContextVar[Subject | None] = ContextVar("log_subject", default=None)


def begin(subject: Subject) -> None:
    """Adds the fields of `subject` to the log lines of this task from now on, and of the tasks that it creates."""
    _subject.set(subject)


def current_fields() -> dict[str, Any]:
    """The fields of a line that is written now."""
    subject, trace_id = _subject.get(), current_trace_id()
    fields = {} if subject is None else dict(subject.log_fields())
    return fields if trace_id is None else {**fields, "trace_id": trace_id}
