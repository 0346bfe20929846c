"""The event loops of tests: those of uvloop, as in the processes of Tidemark."""

import asyncio
import warnings

import uvloop


def use_uvloop() -> None:
    """Makes every new event loop one of uvloop."""
    with warnings.catch_warnings():
        # pytest-asyncio takes a loop's class per test, but not for fixtures of tests without a loop; so it is set for
        # the process, which Python 3.14 warns of.
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
