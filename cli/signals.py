"""Signals that end a command which has something to finish or to clear away: Ctrl-C, SIGTERM, a closed terminal."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Result = TypeVar("Result")


class EndedBySignal(Exception):
    """A signal other than Ctrl-C ended the work, which has cleared away after itself."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.exit_code = 128 + number  # as a shell says it of a program that the signal ended


async def clearing_away(work: Coroutine[Any, Any, Result]) -> Result:
    """Awaits `work`, and cancels it at SIGTERM and SIGHUP as asyncio does at Ctrl-C. Raises EndedBySignal then."""
    task = asyncio.current_task()
    assert task is not None
    came: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        came.append(number)
        task.cancel()

    followed = _followed((signal.SIGTERM, signal.SIGHUP))
    for number in followed:
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    try:
        return await work
    except asyncio.CancelledError:
        if not came:
            raise
        raise EndedBySignal(came[0]) from None
    finally:
        for number in followed:
            asyncio.get_running_loop().remove_signal_handler(number)


def _followed(numbers: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    """Those that were not ignored from the start: a command under nohup is meant to go on."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


class Signals:
    """Hears signals for the time of a `with` block. first: the one that came first, None before."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._once = asyncio.Event()
        self._twice = asyncio.Event()
        self._numbers: list[signal.Signals] = []

    def __enter__(self) -> "Signals":
        self._numbers = _followed(NUMBERS)
        for number in self._numbers:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread
                asyncio.get_running_loop().add_signal_handler(number, self._came, number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._numbers:
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
