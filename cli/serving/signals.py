"""Signals that end a command which has something to finish or to clean up: Ctrl-C, SIGTERM, a closed terminal."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Result = TypeVar("Result")


class EndedBySignal(Exception):
    """A signal other than SIGINT ended the work, after its clean-up. exit_code: 128 + the signal, as in a shell."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.exit_code = 128 + number


async def cancelled_by_signals(work: Coroutine[Any, Any, Result]) -> Result:
    """Awaits `work`, and cancels it at SIGTERM and SIGHUP, as asyncio does at SIGINT. Raises EndedBySignal then."""
    task = asyncio.current_task()
    assert task is not None
    received: list[signal.Signals] = []

    def on_signal(number: signal.Signals) -> None:
        received.append(number)
        task.cancel()

    handled = _not_ignored((signal.SIGTERM, signal.SIGHUP))
    for number in handled:
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    try:
        return await work
    except asyncio.CancelledError:
        if not received:
            raise
        raise EndedBySignal(received[0]) from None
    finally:
        for number in handled:
            asyncio.get_running_loop().remove_signal_handler(number)


def _not_ignored(numbers: tuple[signal.Signals, ...]) -> list[signal.Signals]:
    """The signals that were not ignored at the start: under nohup a command must survive SIGHUP."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


class SignalWaiter:
    """Receives signals within a `with` block. first: the first signal, None before it."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        self._received_one = asyncio.Event()
        self._received_two = asyncio.Event()
        self._numbers: list[signal.Signals] = []

    def __enter__(self) -> "SignalWaiter":
        self._numbers = _not_ignored(NUMBERS)
        for number in self._numbers:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not in the main thread
                asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._numbers:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # as above
                asyncio.get_running_loop().remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        if self.first is None:
            self.first = number
            self._received_one.set()
        else:
            self._received_two.set()

    async def first_or_end(self, work: "asyncio.Task[None]") -> None:
        """Waits for the first signal or the end of the work."""
        await self._either(self._received_one, work, None)

    async def second_or_end(self, work: "asyncio.Task[None]", timeout: float) -> None:
        """Waits for the second signal or the end of the work, at most `timeout` seconds."""
        await self._either(self._received_two, work, timeout)

    async def _either(self, event: asyncio.Event, work: "asyncio.Task[None]", timeout: float | None) -> None:
        waiting = asyncio.create_task(event.wait(), name="signal")
        try:
            await asyncio.wait({waiting, work}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
