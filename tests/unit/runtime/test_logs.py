"""Log lines that contain what a caller has chosen."""

import json
import logging
import sys

import pytest

from runtime.logs import JsonFormatter, TextFormatter

ODD = "/a\n12:00:00.000 error   \r\x1b[31m\x9b\u202e\u2028\U000e0001é\\ end"


def record(text: str, **fields: str) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": "%s called", "args": (text,), "levelname": "INFO", **fields})
    assert made.getMessage() == f"{text} called"
    return made


def test_line_of_text_has_escapes_in_place_of_what_is_not_printable() -> None:
    line = TextFormatter().format(record(ODD, method=ODD))
    assert line.isprintable()
    shown = r"/a\n12:00:00.000 error   \r\u001b[31m\u009b\u202e\u2028\udb40\udc01é\ end"
    assert line.endswith(f"{shown} called  method={shown}")


def test_line_of_json_is_printable_and_keeps_the_text() -> None:
    line = JsonFormatter().format(record(ODD, method=ODD))
    assert line.isprintable()
    assert "é" in line
    found = json.loads(line)
    assert (found["message"], found["method"]) == (f"{ODD} called", ODD)


def test_traceback_keeps_its_lines_and_nothing_else_that_is_not_printable() -> None:
    try:
        raise ValueError("\x1b[31m")
    except ValueError:
        failed = record("plain")
        failed.exc_info = sys.exc_info()
    lines = TextFormatter().format(failed).splitlines()
    assert len(lines) > 2
    assert lines[-1] == r"ValueError: \u001b[31m"


@pytest.mark.parametrize("form", [TextFormatter(), JsonFormatter()])
def test_printable_line_is_unchanged(form: logging.Formatter) -> None:
    assert "straße → 10" in form.format(record("straße → 10"))
