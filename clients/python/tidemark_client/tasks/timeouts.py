"""A time limit for one wait, in every version of Python."""

import asyncio
import sys
from collections.abc import Awaitable
from typing import TypeVar

_Result = TypeVar("_Result")

if sys.version_info >= (3, 11):

    async def within(seconds: float, work: Awaitable[_Result]) -> _Result:
        """The result of the work. Raises TimeoutError after so many seconds; `math.inf` is no limit."""
        async with asyncio.timeout(None if seconds == float("inf") else seconds):
            return await work

else:

    async def within(seconds: float, work: Awaitable[_Result]) -> _Result:
        """The result of the work. Raises TimeoutError after so many seconds; `math.inf` is no limit."""
        try:
            return await asyncio.wait_for(work, None if seconds == float("inf") else seconds)
        except asyncio.TimeoutError:
            raise TimeoutError from None
