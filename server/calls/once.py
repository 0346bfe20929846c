"""Something that happens once, and the futures that wait for it."""

import asyncio


class Once:
    """Something that happens once, such as the drain of the server.

    A stream waits for several of these with one future. With events it would take a task for each, and one for all.
    """

    __slots__ = ("_is_set", "_waits")

    def __init__(self) -> None:
        self._is_set = False
        self._waits: set[asyncio.Future[None]] = set()

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._is_set

    def set(self) -> None:
        """Says that it happens."""
        self._is_set = True
        for wait in tuple(self._waits):
            complete(wait)

    def completes(self, wait: asyncio.Future[None]) -> None:
        """Completes the future when it happens, or now if it has happened."""
        if self._is_set:
            complete(wait)
        else:
            self._waits.add(wait)
            wait.add_done_callback(self._waits.discard)

    async def wait(self) -> None:
        """Returns when it has happened."""
        wait = asyncio.get_running_loop().create_future()
        self.completes(wait)
        await wait


def complete(wait: asyncio.Future[None]) -> None:
    """Completes a future, unless it has ended."""
    if not wait.done():
        wait.set_result(None)
