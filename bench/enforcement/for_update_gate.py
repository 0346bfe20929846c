"""`SELECT … FOR UPDATE` on PostgreSQL: one transaction for each reservation and for each settlement; a script.

It is as durable as Tidemark, and records the usage. It has no windows, no alerts, and a hold that nothing settles
stays.
"""

from collections.abc import Sequence

import asyncpg  # type: ignore[import-not-found]  # only in the environment of the peers

from bench.enforcement.gate import LIMIT, RESERVED, SETTLED, Gate, Refused, run

_TABLES = """
CREATE TABLE IF NOT EXISTS allowance (
    customer_id text PRIMARY KEY, amount numeric NOT NULL, counted numeric NOT NULL, held numeric NOT NULL
) WITH (fillfactor = 70);
CREATE TABLE IF NOT EXISTS hold (
    reservation_id text PRIMARY KEY, customer_id text NOT NULL, amount numeric NOT NULL, settled numeric,
    create_time timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS usage (
    event_id text PRIMARY KEY, customer_id text NOT NULL, quantity numeric NOT NULL,
    event_time timestamptz NOT NULL DEFAULT now()
);
"""
_CUSTOMERS = """
INSERT INTO allowance SELECT 'customer-' || lpad(n::text, 6, '0'), $2, 0, 0 FROM generate_series(0, $1 - 1) AS n
ON CONFLICT DO NOTHING
"""
_LOCK = "SELECT amount, counted, held FROM allowance WHERE customer_id = $1 FOR UPDATE"


class ForUpdateGate(Gate):
    """A team's first design: correct and simple, on several connections."""

    async def open(self, customers: int) -> None:
        """Makes the tables and connects."""
        self._connections = [await asyncpg.connect(self.store) for _ in range(self.callers)]
        await self._connections[0].execute(_TABLES)
        await self._connections[0].execute(_CUSTOMERS, customers, LIMIT)

    async def reserve(self, caller: int, holds: Sequence[tuple[str, str]]) -> None:
        """One transaction."""
        [(customer_id, reservation_id)] = holds
        connection = self._connections[caller]
        async with connection.transaction():
            amount, counted, held = await connection.fetchrow(_LOCK, customer_id)
            if counted + held + RESERVED > amount:
                raise Refused
            made = await connection.fetchval(
                "INSERT INTO hold VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING 1",
                reservation_id,
                customer_id,
                RESERVED,
            )
            if made:
                await connection.execute(
                    "UPDATE allowance SET held = held + $2 WHERE customer_id = $1", customer_id, RESERVED
                )

    async def settle(self, caller: int, holds: Sequence[tuple[str, str]]) -> None:
        """One transaction."""
        [(customer_id, reservation_id)] = holds
        connection = self._connections[caller]
        async with connection.transaction():
            await connection.fetchrow(_LOCK, customer_id)
            held = await connection.fetchval(
                "UPDATE hold SET settled = $2 WHERE reservation_id = $1 AND settled IS NULL RETURNING amount",
                reservation_id,
                SETTLED,
            )
            if held is None:
                raise Refused
            await connection.execute(
                "INSERT INTO usage (event_id, customer_id, quantity) VALUES ($1, $2, $3)",
                reservation_id,
                customer_id,
                SETTLED,
            )
            await connection.execute(
                "UPDATE allowance SET held = held - $2, counted = counted + $3 WHERE customer_id = $1",
                customer_id,
                held,
                SETTLED,
            )

    async def held(self, ids: Sequence[str]) -> list[str]:
        """One query."""
        found = await self._connections[0].fetch(
            "SELECT reservation_id FROM hold WHERE reservation_id = ANY($1::text[])", ids
        )
        return [one for (one,) in found]


if __name__ == "__main__":
    run(ForUpdateGate)
