"""A Lua script in Redis for each event: SET NX of its id, INCRBY of the sum, thresholds; a script.

Pipelines of 500 calls are encoded before the measurement, like Tidemark's messages. What a crash loses depends on how
Redis is started. Redis keeps the ids and the sums in memory; quantities are integers, and Lua compares them as binary
floating point numbers.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import hiredis  # type: ignore[import-not-found]  # only in the environment of the peers

from bench.peers.script import Peer, run
from bench.peers.task import Event, Task

ID_SECONDS = 35 * 86_400  # as long as Tidemark knows ids at least
TOTAL = "total:"  # before the id of a customer
READ_BYTES = 65_536

_COUNT = """
if not redis.call('SET', KEYS[1], 1, 'NX', 'EX', {seconds}) then return 0 end
local value = redis.call('INCRBY', KEYS[2], ARGV[1])
local previous = value - ARGV[1]
local found = 0
for _, threshold in ipairs({{ {thresholds} }}) do
    if previous < threshold and threshold <= value then
        redis.call('RPUSH', 'reached', KEYS[2] .. ' ' .. threshold)
        found = 1
    end
end
if math.floor(value / {step}) > math.floor(previous / {step}) then
    redis.call('RPUSH', 'reached', KEYS[2] .. ' ' .. math.floor(value / {step}))
    found = 1
end
return found
"""


class _Connection:
    """One connection, with one pipeline at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._replies = hiredis.Reader()

    async def ask(self, commands: bytes, number: int) -> list[Any]:
        """Sends encoded commands; returns the replies. Raises hiredis.ReplyError for the first that failed."""
        self._writer.write(commands)
        found: list[Any] = []
        while len(found) < number:
            while (reply := self._replies.gets()) is not False:
                if isinstance(reply, Exception):
                    raise reply
                found.append(reply)
            if len(found) < number:
                if not (data := await self._reader.read(READ_BYTES)):
                    raise ConnectionError("Redis has closed the connection")
                self._replies.feed(data)
        return found

    def close(self) -> None:
        """Closes it."""
        self._writer.close()


class RedisScript(Peer):
    """Counters in memory, which one thread changes."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._connections: list[_Connection] = []
        self._digest = b""

    async def open(self) -> None:
        """Connects, and loads the script."""
        for _ in range(self.callers):
            self._connections.append(_Connection(*await asyncio.open_unix_connection(self.task.store)))
        script = _COUNT.format(
            seconds=ID_SECONDS, thresholds=", ".join(map(str, self.task.thresholds)), step=self.task.recurring
        )
        [self._digest] = await self._connections[0].ask(hiredis.pack_command(("SCRIPT", "LOAD", script)), 1)

    def encode(self, events: Sequence[Event]) -> Any:
        """The pipeline, and the customer of each of its calls."""
        commands = [
            hiredis.pack_command(
                ("EVALSHA", self._digest, 2, f"id:{event.event_id}", TOTAL + event.customer_id, event.quantity)
            )
            for event in events
        ]
        return b"".join(commands), [event.customer_id for event in events]

    async def count(self, caller: int, call: Any) -> None:
        """One pipeline."""
        commands, customers = call
        for customer_id, found in zip(
            customers, await self._connections[caller].ask(commands, len(customers)), strict=True
        ):
            if found:
                self.reached(customer_id)

    async def totals(self) -> dict[str, int]:
        """The values of all counters."""
        [keys] = await self._connections[0].ask(hiredis.pack_command(("KEYS", TOTAL + "*")), 1)
        if not keys:
            return {}
        [values] = await self._connections[0].ask(hiredis.pack_command(("MGET", *keys)), 1)
        names = [key.decode().removeprefix(TOTAL) for key in keys]
        return {name: int(value) for name, value in zip(names, values, strict=True)}

    async def close(self) -> None:
        """Closes the connections."""
        for connection in self._connections:
            connection.close()


if __name__ == "__main__":
    run(RedisScript)
