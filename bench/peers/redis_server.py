"""A Redis server for a benchmark: the machine's own, or that of the Debian package, unpacked below .build/."""

import asyncio
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

from bench.support.environment import Unavailable, run
from bench.support.stack import FOLDER

PACKAGES = ("redis-tools", "libjemalloc2", "liblua5.1-0", "liblzf1", "lua-bitop", "lua-cjson")
START_TIMEOUT = 20.0  # seconds until it answers; it reads its file of changes before

_PLACE = FOLDER / "redis"


async def program() -> str:
    """The path of redis-server. Raises Unavailable."""
    if found := shutil.which("redis-server"):
        return found
    unpacked = _PLACE / "usr" / "bin" / "redis-server"
    if not unpacked.exists():
        packages = _PLACE / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        await run("apt-get", "download", "--quiet", *PACKAGES, folder=str(packages))
        for package in sorted(packages.glob("*.deb")):
            await run("dpkg", "-x", str(package), str(_PLACE))
        if not unpacked.exists():
            unpacked.symlink_to("redis-check-rdb")  # one program with several names
    return str(unpacked)


class RedisServer:
    """A server on a socket in `folder`, which can be killed and started again."""

    def __init__(self, path: str, folder: Path, options: Sequence[str]) -> None:
        """path: of the program. options: how it makes changes durable."""
        self.socket = str(folder / "redis.sock")
        self._folder = folder
        self._command = [path, "--port", "0", "--unixsocket", self.socket, "--dir", str(folder), *options]
        self._libraries = sorted({str(library.parent) for library in _PLACE.rglob("*.so*")})
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it, and waits until it has read its data. Raises Unavailable."""
        with (self._folder / "redis.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=log, stderr=log, env={"LD_LIBRARY_PATH": ":".join(self._libraries)}
            )
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise Unavailable(f"redis-server has ended: {self._last_words()}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise Unavailable(f"redis-server did not answer in {START_TIMEOUT:g} s") from None

    async def kill(self) -> None:
        """Sends SIGKILL, and waits until it has ended."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return (await reader.readline()).startswith(b"+PONG")
        except OSError:
            return False
        finally:
            writer.close()

    def _last_words(self) -> str:
        lines = (self._folder / "redis.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "its log is empty"
