"""Work that a signal ends clears away after itself first."""

import asyncio
import os
import signal

import pytest

from cli.signals import EndedBySignal, clearing_away


async def work(did: list[str], number: signal.Signals | None) -> str:
    try:
        if number is None:
            return "result"
        os.kill(os.getpid(), number)
        await asyncio.sleep(60)
        return "nothing ended it"
    finally:
        await asyncio.sleep(0)
        did.append("cleared away")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_work_that_clears_away(number: signal.Signals) -> None:
    did: list[str] = []
    with pytest.raises(EndedBySignal) as raised:
        asyncio.run(clearing_away(work(did, number)))
    assert did == ["cleared away"]
    assert raised.value.exit_code == 128 + number


def test_work_that_ends_by_itself_keeps_its_result_and_no_handler() -> None:
    before = signal.getsignal(signal.SIGHUP)
    assert asyncio.run(clearing_away(work([], None))) == "result"
    assert signal.getsignal(signal.SIGHUP) == before
