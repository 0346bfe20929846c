"""One transaction for each event on PostgreSQL: one statement inserts it, sums up and finds thresholds; a script.

It counts each event once, and loses nothing: the id of an event is unique, and an event is acknowledged after its
commit. One statement needs one round trip, so no form of this is faster.
"""

from collections.abc import Sequence
from typing import Any

from bench.peers.on_postgresql import OnPostgreSQL, time_of
from bench.peers.script import run
from bench.peers.task import Event

_COUNT = """
WITH new AS (
    INSERT INTO event VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING customer_id, quantity
), moved AS (
    INSERT INTO total AS t SELECT customer_id, quantity FROM new
    ON CONFLICT (customer_id) DO UPDATE SET value = t.value + excluded.value
    RETURNING customer_id, value, value - $3 AS previous
)
INSERT INTO reached
SELECT customer_id, threshold.value
FROM moved JOIN threshold ON threshold.value > previous AND threshold.value <= moved.value
UNION ALL
SELECT customer_id, value / {step} * {step} FROM moved WHERE value / {step} > previous / {step}
ON CONFLICT DO NOTHING RETURNING customer_id
"""


class OneTransaction(OnPostgreSQL):
    """A team's first design: correct, simple, one event at a time on several connections."""

    batch_events = 1
    callers = 16

    async def prepare(self) -> None:
        """One statement for each connection."""
        statement = _COUNT.format(step=self.task.recurring)
        self._statements = [await connection.prepare(statement) for connection in self.connections]

    def encode(self, events: Sequence[Event]) -> Any:
        """The parameters of the statement."""
        [event] = events
        return event.event_id, event.customer_id, event.quantity, time_of(event)

    async def count(self, caller: int, call: Any) -> None:
        """One transaction."""
        for (customer_id,) in await self._statements[caller].fetch(*call):
            self.reached(customer_id)

    async def totals(self) -> dict[str, int]:
        """The sums that the transactions keep."""
        return dict(await self.connections[0].fetch("SELECT customer_id, value FROM total"))


if __name__ == "__main__":
    run(OneTransaction)
