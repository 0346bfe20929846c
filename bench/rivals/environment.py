"""The rivals' environment: made under .build/ when it is first wanted, since the project depends on none of them."""

import asyncio
import sys

from bench.support.stack import FOLDER

REQUIREMENTS = ("procrastinate==3.10.0", "pgqueuer==1.6.0", "asyncpg", "aiohttp", "uvloop")
TIMEOUT = 90.0  # seconds to install them
MAX_MESSAGE_LENGTH = 200  # characters of pip's output

_PLACE = FOLDER / "rivals"


class Unavailable(Exception):
    """The rivals cannot be installed or run here; the message says why."""


async def python() -> str:
    """The interpreter that has them; makes it when it is not there. Raises Unavailable."""
    interpreter, done = _PLACE / "bin" / "python", _PLACE / "installed"
    wanted = "\n".join(REQUIREMENTS)
    if not (done.exists() and done.read_text() == wanted):
        await _run(sys.executable, "-m", "venv", "--clear", str(_PLACE))
        await _run(str(interpreter), "-m", "pip", "install", "--quiet", *REQUIREMENTS)
        done.write_text(wanted)
    return str(interpreter)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(TIMEOUT):
            _, printed = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Unavailable(f"their installation took longer than {TIMEOUT:g} s") from None
    if process.returncode:
        raise Unavailable(printed.decode(errors="replace").strip()[-MAX_MESSAGE_LENGTH:])
