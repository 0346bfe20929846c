"""A PostgreSQL server of a test's own, which the test may stop, crash and start again."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.acceptance.processes import DEADLINE, until

# In a process of its own, which ends without the clean-up that would take the server with it. The test's process is
# no place for this: as root the wheel forks to become another user, and a process with gRPC's threads may not fork.
START = """
import os, pathlib, sys
from store import embedded
print(embedded.start(pathlib.Path(sys.argv[1])), flush=True)
os._exit(0)
"""


class OwnServer:
    """An embedded server in a folder of its own. url: of its database, once it was started."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self._folder = folder
        self._pid_file = folder / "postgres" / "postmaster.pid"

    async def start(self, *, standby: bool = False) -> None:
        """Starts it, for the first time or again. standby: as one that takes no writes until it is promoted."""
        if standby:
            signal_file = self._pid_file.with_name("standby.signal")
            signal_file.touch()
            owner = self._pid_file.parent.stat()
            os.chown(signal_file, owner.st_uid, owner.st_gid)
        starting = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-c", START, str(self._folder), stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(DEADLINE):
            told, _ = await starting.communicate()
        assert starting.returncode == 0
        self.url = told.decode().strip()

    async def stop(self) -> None:
        """Stops it as an operator does: sessions are ended, everything is written out."""
        await self._end(signal.SIGINT)

    async def crash(self) -> None:
        """Ends it with nothing written out but what had to be; it recovers when it starts."""
        await self._end(signal.SIGQUIT)

    async def _end(self, how: signal.Signals) -> None:
        os.kill(int(self._pid_file.read_text().split()[0]), how)
        await until(lambda: not self._pid_file.exists())

    async def clear_away(self) -> None:
        """Stops it if it runs, and removes its folder."""
        if self._pid_file.exists():
            await self.stop()
        shutil.rmtree(self._folder)


@asynccontextmanager
async def own_server() -> AsyncIterator[OwnServer]:
    """A running server of the block's own."""
    # Not below pytest's own folder, see tests.conftest.
    server = OwnServer(Path(tempfile.mkdtemp(prefix="tidemark-test-")))
    try:
        await server.start()
        yield server
    finally:
        await server.clear_away()
