"""Work that a signal ends cleans up before it ends."""

import asyncio
import os
import signal

import pytest

from cli.serving.signals import EndedBySignal, cancelled_by_signals


async def work(did: list[str], number: signal.Signals | None) -> str:
    try:
        if number is None:
            return "result"
        os.kill(os.getpid(), number)
        await asyncio.sleep(60)
        return "nothing ended it"
    finally:
        await asyncio.sleep(0)
        did.append("cleaned up")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_cancels_work_after_its_clean_up(number: signal.Signals) -> None:
    did: list[str] = []
    with pytest.raises(EndedBySignal) as raised:
        asyncio.run(cancelled_by_signals(work(did, number)))
    assert did == ["cleaned up"]
    assert raised.value.exit_code == 128 + number


def test_work_that_ends_by_itself_returns_its_result_and_leaves_no_handler() -> None:
    before = signal.getsignal(signal.SIGHUP)
    assert asyncio.run(cancelled_by_signals(work([], None))) == "result"
    assert signal.getsignal(signal.SIGHUP) == before
