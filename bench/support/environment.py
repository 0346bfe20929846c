"""Environments of Python for what the benchmarks compare with and draw with: the project depends on none of it."""

import asyncio
import sys
from collections.abc import Sequence

from bench.support.stack import FOLDER

TIMEOUT = 90.0  # seconds to install one
MAX_MESSAGE_LENGTH = 200  # characters of what a command printed


class Unavailable(Exception):
    """Something that is no part of the project cannot be installed or run here; the message says why."""


class Environment:
    """A virtual environment below .build/, made when it is first wanted, and again when its requirements change."""

    def __init__(self, name: str, requirements: Sequence[str]) -> None:
        self._place = FOLDER / name
        self._requirements = tuple(requirements)

    async def python(self) -> str:
        """The path of its interpreter. Raises Unavailable."""
        interpreter, done = self._place / "bin" / "python", self._place / "installed"
        wanted = "\n".join(self._requirements)
        if not (done.exists() and done.read_text() == wanted):
            await run(sys.executable, "-m", "venv", "--clear", str(self._place))
            await run(
                str(interpreter), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *self._requirements
            )
            done.write_text(wanted)
        return str(interpreter)


async def run(*command: str, folder: str | None = None) -> None:
    """Runs a command of an installation, in `folder`. Raises Unavailable."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, cwd=folder
        )
    except OSError as error:
        raise Unavailable(str(error)) from None
    try:
        async with asyncio.timeout(TIMEOUT):
            _, printed = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Unavailable(f"{command[0]} took longer than {TIMEOUT:g} s") from None
    if process.returncode:
        raise Unavailable(printed.decode(errors="replace").strip()[-MAX_MESSAGE_LENGTH:])
