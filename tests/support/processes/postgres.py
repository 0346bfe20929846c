"""A PostgreSQL server of a test's own, which the test may stop, crash and start again."""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from store.embedded import Holder
from tests.support.memory import server_folder
from tests.support.processes.programs import DEADLINE, until


class OwnServer:
    """An embedded server in a folder of its own. url: of its database, once it was started."""

    def __init__(self, folder: Path) -> None:
        self.url = ""
        self._holder: Holder | None = None
        self._folder = folder
        self._pid_file = folder / "postgres" / "postmaster.pid"

    async def start(self, *, standby: bool = False) -> None:
        """Starts it, for the first time or again. standby: as one that takes no writes until it is promoted."""
        if standby:
            signal_file = self._pid_file.with_name("standby.signal")
            signal_file.touch()
            owner = self._pid_file.parent.stat()
            os.chown(signal_file, owner.st_uid, owner.st_gid)
        async with asyncio.timeout(DEADLINE):
            # Nothing watches it, so that it stays down when a test ended it.
            if self._holder is None:
                self._holder = await asyncio.to_thread(Holder, self._folder)
                self.url = self._holder.url
            else:
                await asyncio.to_thread(self._holder.restart)

    async def stop(self) -> None:
        """Stops it as an operator does: sessions are ended, everything is written out."""
        await self._end(signal.SIGINT)

    async def crash(self) -> None:
        """Ends it with nothing written out but what had to be; it recovers when it starts."""
        await self._end(signal.SIGQUIT)

    async def _end(self, how: signal.Signals) -> None:
        os.kill(int(self._pid_file.read_text().split()[0]), how)
        holder = self._holder
        assert holder is not None
        await until(holder.ended)

    async def clear_away(self) -> None:
        """Stops it if it runs, and removes its folder."""
        if self._holder is not None:
            await asyncio.to_thread(self._holder.close)
        shutil.rmtree(self._folder)


@asynccontextmanager
async def own_server() -> AsyncIterator[OwnServer]:
    """A running server of the block's own."""
    # A short path: the url is the socket's own.
    server = OwnServer(server_folder())
    try:
        await server.start()
        yield server
    finally:
        await server.clear_away()
