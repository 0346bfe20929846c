"""Plain output to a terminal, to a file, and to a reader that is gone."""

import errno
import io

import click
import pytest

from cli import console
from cli.console import DurableProgress, Problem


class Terminal(io.StringIO):
    """Standard error on a terminal."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Terminal:
    """Puts standard error on a terminal that shows colours, for the rest of the test."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    return stream


def test_line_has_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    console.print_progress(console.bad("gone"))
    assert terminal.getvalue() == click.style("gone", fg="red", bold=True) + "\n"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_line_has_no_colours_when_the_environment_forbids_them(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = on_a_terminal(monkeypatch, **{variable: value})
    console.print_progress(console.bad("gone"))
    assert terminal.getvalue() == "gone\n"


def test_line_has_no_colours_in_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_result(f"{console.named('acme')} [name]")
    assert capsys.readouterr().out == "acme [name]\n"


def test_problem_shows_its_message_and_each_hint_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Problem("no \rserver", ["start one", "name one"]).show()
    assert capsys.readouterr().err == "error no server\n      start one\n      name one\n"


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO])
def test_durable_progress_prints_nothing_after_standard_error_is_closed(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            Gone.writes += 1
            raise OSError(number, "gone")

    monkeypatch.setattr("sys.stderr", Gone())
    say = DurableProgress()
    say("one")
    say("two")
    assert Gone.writes == 1
