"""Events inserted in batches into PostgreSQL, and a query each second that sums up all of them; a script.

It loses nothing, and counts each event once: the id of an event is unique. The query reads every event of the period,
so it becomes slower with what is stored. Of several multiples that a customer reaches between two queries it records
the last.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from bench.peers.on_postgresql import OnPostgreSQL, time_of
from bench.peers.script import run
from bench.peers.task import Event

INTERVAL = 1.0  # seconds from the start of a query to that of the next one

_INSERT = """
INSERT INTO event SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[])
ON CONFLICT DO NOTHING
"""
_SUM = "SELECT customer_id, sum(quantity)::bigint AS value FROM event GROUP BY customer_id"
_POLL = """
WITH total AS ({sum})
INSERT INTO reached
SELECT customer_id, threshold.value FROM total JOIN threshold ON threshold.value <= total.value
UNION ALL
SELECT customer_id, value / {step} * {step} FROM total WHERE value >= {step}
ON CONFLICT DO NOTHING RETURNING customer_id
"""


class Polling(OnPostgreSQL):
    """A design for batches: the inserts know nothing of sums and thresholds."""

    callers = 4

    async def prepare(self) -> None:
        """The insert of each connection, and a connection of its own for the query."""
        self._statements = [await connection.prepare(_INSERT) for connection in self.connections]
        # After the others, so that it is closed with them.
        connection = await self.connect()
        self.connections.append(connection)
        self._polling = asyncio.create_task(self._poll(connection))

    async def _poll(self, connection: Any) -> None:
        statement = _POLL.format(sum=_SUM, step=self.task.recurring)
        clock = asyncio.get_running_loop().time
        while True:
            started = clock()
            for (customer_id,) in await connection.fetch(statement):
                self.reached(customer_id)
            await asyncio.sleep(max(0.0, started + INTERVAL - clock()))

    def encode(self, events: Sequence[Event]) -> Any:
        """The columns of the batch."""
        return (
            [event.event_id for event in events],
            [event.customer_id for event in events],
            [event.quantity for event in events],
            [time_of(event) for event in events],
        )

    async def count(self, caller: int, call: Any) -> None:
        """One insert, in a transaction of its own."""
        await self._statements[caller].fetch(*call)

    async def totals(self) -> dict[str, int]:
        """The sums of the query."""
        return dict(await self.connections[0].fetch(_SUM))

    async def close(self) -> None:
        """Ends the query, and closes the connections."""
        self._polling.cancel()
        await asyncio.gather(self._polling, return_exceptions=True)
        await super().close()


if __name__ == "__main__":
    run(Polling)
