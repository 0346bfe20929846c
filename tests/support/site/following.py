"""A page is followed as a reader does: its files are written, its commands are typed, its answers are compared.

- `sh` is typed into one folder, block by block; exported variables stay. With the title "terminal 2" it goes on in a
  terminal of its own, where the command before it is ended with Ctrl-C.
- `json` after `sh` is the last answer of that block, or a part of it. `…` stands for any text.
- `text` is what that block has printed, or a part of it; with the title "terminal 2", what comes there. `^C` below it
  is pressed then.
- `title="receiver.py"` makes a file; the title of a file of the repository quotes that file.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes.grpcurl import GRPCURL
from tests.support.site.blocks import ROOT, Block, blocks_of

TIMEOUT = 60.0  # seconds for anything to happen
CTRL_C = "^C\n"  # as a terminal shows it: the last line of what came there
SERVER = "127.0.0.1:50051"  # as pages write it


@dataclass
class Reader:
    """One who follows a page.

    replaced: texts of the page and what stands for them here: addresses and ports. left_out: first lines of blocks
    that are not typed.
    """

    folder: Path
    replaced: Mapping[str, str]
    left_out: frozenset[str] = frozenset()
    environment: dict[str, str] = field(default_factory=dict)
    _terminals: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)
    _printed: str = ""

    def follow(self, page: Path) -> None:
        """Follows the page from its beginning to its end."""
        self._write_grpcurl()
        (self.folder / "deploy").symlink_to(ROOT / "deploy")
        blocks = blocks_of(page)
        for block in blocks:
            where = f"{page.name}, line {block.line}"
            if block.text.splitlines()[0] not in self.left_out:
                self._take(block, where)
        for made in (one.title for one in blocks if one.title and one.source is None and not one.in_a_terminal):
            used = any(made in other.text for other in blocks)
            assert used, f"{page.name} makes {made}, and does not use it"

    def close(self) -> None:
        """Ends what runs in the terminals."""
        for process in self._terminals.values():
            _signal(process, signal.SIGTERM)
        for process in self._terminals.values():
            _wait_for_group(process)

    def _take(self, block: Block, where: str) -> None:
        text = self._here(block.text)
        if block.source is not None:
            assert is_part_of_text(block.text, block.source.read_text()), f"{where} is not in {block.title}"
        elif block.language == "sh":
            self._type(block.title, text, where)
        elif block.in_a_terminal:
            shown, interrupted, _ = text.partition(CTRL_C)
            self._await(block.title, shown, where)
            if interrupted:
                self._interrupt(block.title)
        elif block.title:
            (self.folder / block.title).write_text(text)
        elif block.language == "json":
            answer = answers_of(self._printed)[-1]
            assert is_part_of(json.loads(text), answer), f"{where}: the answer was {json.dumps(answer, indent=2)}"
        elif block.language == "text":
            assert is_printed(text, self._printed), f"{where}: printed was\n{self._printed}"
        else:
            raise AssertionError(f"{where}: nothing is done with a block of the language {block.language!r}")

    def _here(self, text: str) -> str:
        for written, here in self.replaced.items():
            text = text.replace(written, here)
        return text

    def _type(self, terminal: str, text: str, where: str) -> None:
        if re.search(r"^node ", text, re.MULTILINE) and shutil.which("node") is None:
            pytest.skip(f"{where}: node is not installed; the page was followed up to there")
        variables = self.folder / "variables"
        before = f". {variables}\n" if variables.exists() else ""
        if terminal:
            self._interrupt(terminal)
            with self._log(terminal).open("wb") as log:
                self._terminals[terminal] = subprocess.Popen(
                    ["bash", "-euo", "pipefail", "-c", before + text],
                    cwd=self.folder,
                    env=self._variables(),
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            return
        finished = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{before}{text}\nexport -p > {variables}"],
            cwd=self.folder,
            env=self._variables(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert finished.returncode == 0, f"{where}: {finished.stderr}{finished.stdout}"
        self._printed = finished.stdout

    def _interrupt(self, terminal: str) -> None:
        """Presses Ctrl-C where something runs, before the next command is typed there."""
        process = self._terminals.pop(terminal, None)
        if process is not None:
            _signal(process, signal.SIGINT)
            _wait_for_group(process)

    def _await(self, terminal: str, text: str, where: str) -> None:
        end = time.monotonic() + TIMEOUT
        while not is_printed(text, said := self._log(terminal).read_text()):
            assert time.monotonic() < end, f"{where} did not come in {terminal}:\n{said}"
            time.sleep(0.05)

    def _log(self, terminal: str) -> Path:
        return self.folder / f"{terminal}.log"

    def _variables(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
        path = os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), inherited["PATH"]])
        # What a program prints is there at once, as on a terminal.
        return {**inherited, "PYTHONUNBUFFERED": "1", **self.environment, "PATH": path}

    def _write_grpcurl(self) -> None:
        program = self.folder / "bin" / "grpcurl"
        program.parent.mkdir()
        program.write_text(GRPCURL)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)


@contextmanager
def reader(folder: Path, replaced: Mapping[str, str], left_out: frozenset[str] = frozenset()) -> Iterator[Reader]:
    """A reader with an empty folder; the terminals are closed at the end."""
    one = Reader(folder, replaced, left_out)
    try:
        yield one
    finally:
        one.close()


def answers_of(printed: str) -> list[Any]:
    """The JSON values that were printed one after the other."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while match := re.compile(r"\s*(?=[\[{])").match(printed, position):
        value, position = decoder.raw_decode(printed, match.end())
        found.append(value)
    return found


def is_part_of(shown: Any, answer: Any) -> bool:
    """Whether an answer has everything that is shown: all fields, and all items of a list in their order."""
    if isinstance(shown, dict):
        return isinstance(answer, dict) and all(
            key in answer and is_part_of(value, answer[key]) for key, value in shown.items()
        )
    if isinstance(shown, list):
        rest = iter(answer if isinstance(answer, list) else [])
        return all(any(is_part_of(one, other) for other in rest) for one in shown)
    if isinstance(shown, str) and isinstance(answer, str):
        return _pattern(shown).fullmatch(answer) is not None
    return type(shown) is type(answer) and bool(shown == answer)


def is_printed(shown: str, printed: str) -> bool:
    """Whether the shown lines were printed in their order, perhaps with others between them."""
    rest = iter(" ".join(line.split()) for line in printed.splitlines())
    lines = [" ".join(line.split()) for line in shown.splitlines() if line.strip()]
    return all(any(_pattern(line).fullmatch(other) for other in rest) for line in lines)


def is_part_of_text(quoted: str, text: str) -> bool:
    """Whether the lines stand in the text one after the other; they may be indented less."""
    lines = textwrap.dedent(quoted).splitlines()
    of_text = text.splitlines()
    return any(
        textwrap.dedent("\n".join(of_text[start : start + len(lines)])).splitlines() == lines
        for start in range(len(of_text) - len(lines) + 1)
    )


def _pattern(shown: str) -> "re.Pattern[str]":
    return re.compile(".*".join(map(re.escape, shown.split("…"))), re.DOTALL)


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Signals a shell and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _wait_for_group(process: "subprocess.Popen[bytes]") -> None:
    """Waits until a shell and all that it has started have ended; kills what does not end."""
    end = time.monotonic() + TIMEOUT
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT)
