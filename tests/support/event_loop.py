"""The event loops of tests: those of uvloop, as in the processes of Tidemark."""

import asyncio
import warnings

import uvloop


def use_uvloop() -> None:
    """Makes every new event loop one of uvloop."""
    with warnings.catch_warnings():
        # For the whole process: the hook of pytest-asyncio sets the loop of asynchronous tests only. A synchronous
        # test that uses asynchronous fixtures would get another one. Python 3.14 warns of policies.
        warnings.simplefilter("ignore", DeprecationWarning)
        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
