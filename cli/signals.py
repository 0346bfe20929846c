"""Ctrl-C and SIGTERM in a command that has something to finish: the first asks it to end, the second ends it."""

import asyncio
import contextlib
import signal

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Hears signals for the time of a `with` block. first: the one that came first, None before."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._once = asyncio.Event()
        self._twice = asyncio.Event()

    def __enter__(self) -> "Signals":
        for number in NUMBERS:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread
                asyncio.get_running_loop().add_signal_handler(number, self._came, number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in NUMBERS:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                asyncio.get_running_loop().remove_signal_handler(number)

    def _came(self, number: signal.Signals) -> None:
        if self.first is None:
            self.first = number
            self._once.set()
        else:
            self._twice.set()

    async def first_or(self, work: "asyncio.Task[None]") -> None:
        """Waits until the first signal comes or the work is done."""
        await self._either(self._once, work, None)

    async def second_or(self, work: "asyncio.Task[None]", timeout: float) -> None:
        """Waits until the second signal comes or the work is done, for so many seconds at most."""
        await self._either(self._twice, work, timeout)

    async def _either(self, event: asyncio.Event, work: "asyncio.Task[None]", timeout: float | None) -> None:
        came = asyncio.create_task(event.wait(), name="signal")
        try:
            await asyncio.wait({came, work}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            came.cancel()
