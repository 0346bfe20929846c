"""A reservation by a Lua script in Redis: the limit, the counters and the holds of a customer are keys; a script.

Pipelines of 50 calls, like Tidemark's messages. What a crash loses depends on how Redis is started. Lua calculates
with binary floating point numbers, the usage itself is not recorded, and a hold that nothing settles stays.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis  # type: ignore[import-not-found]  # only in the environment of the peers

from bench.enforcement.gate import LIMIT, RESERVED, SETTLED, Gate, Refused, run

READ_BYTES = 65_536
TTL = 3_600  # seconds that a hold is known

_RESERVE = f"""
if redis.call('EXISTS', KEYS[2]) == 1 then return 1 end
local counters = redis.call('HMGET', KEYS[1], 'counted', 'held')
local taken = (tonumber(counters[1]) or 0) + (tonumber(counters[2]) or 0)
if taken + ARGV[1] > {LIMIT} then return 0 end
redis.call('HINCRBY', KEYS[1], 'held', ARGV[1])
redis.call('HSET', KEYS[2], 'amount', ARGV[1], 'customer', KEYS[1])
redis.call('EXPIRE', KEYS[2], {TTL})
return 1
"""
_SETTLE = """
local held = redis.call('HGET', KEYS[2], 'amount')
if not held then return 0 end
redis.call('DEL', KEYS[2])
redis.call('HINCRBY', KEYS[1], 'held', -held)
redis.call('HINCRBY', KEYS[1], 'counted', ARGV[1])
return 1
"""


class RedisGate(Gate):
    """Counters and holds in memory, which one thread changes."""

    callers = 8
    together = 50

    async def open(self, customers: int) -> None:
        """Connects, and loads the scripts."""
        self._connections = [
            (*await asyncio.open_unix_connection(self.store), hiredis.Reader()) for _ in range(self.callers)
        ]
        self._reserve, self._settle = await self._ask(0, [("SCRIPT", "LOAD", _RESERVE), ("SCRIPT", "LOAD", _SETTLE)])

    async def reserve(self, caller: int, holds: Sequence[tuple[str, str]]) -> None:
        """One pipeline."""
        await self._call(caller, self._reserve, holds, RESERVED)

    async def settle(self, caller: int, holds: Sequence[tuple[str, str]]) -> None:
        """One pipeline."""
        await self._call(caller, self._settle, holds, SETTLED)

    async def held(self, ids: Sequence[str]) -> list[str]:
        """One pipeline."""
        found = await self._ask(0, [("EXISTS", f"hold:{one}") for one in ids])
        return [one for one, exists in zip(ids, found, strict=True) if exists]

    async def _call(self, caller: int, script: bytes, holds: Sequence[tuple[str, str]], amount: int) -> None:
        found = await self._ask(
            caller, [("EVALSHA", script, 2, f"customer:{customer}", f"hold:{one}", amount) for customer, one in holds]
        )
        if not all(found):
            raise Refused

    async def _ask(self, caller: int, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        reader, writer, replies = self._connections[caller]
        writer.write(b"".join(map(hiredis.pack_command, commands)))
        found: list[Any] = []
        while len(found) < len(commands):
            while (reply := replies.gets()) is not False:
                if isinstance(reply, Exception):
                    raise reply
                found.append(reply)
            if len(found) < len(commands):
                if not (data := await reader.read(READ_BYTES)):
                    raise ConnectionError("Redis has closed the connection")
                replies.feed(data)
        return found


if __name__ == "__main__":
    run(RedisGate)
