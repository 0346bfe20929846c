"""What a test reads from the database beside its server."""

import asyncio
from collections.abc import Mapping

import psycopg
from psycopg.rows import TupleRow


class Observer:
    """One connection for the queries of a test, opened for the first one: to connect takes longer than to query."""

    def __init__(self) -> None:
        self._connection: psycopg.AsyncConnection[TupleRow] | None = None
        self._url = ""
        self._opening = asyncio.Lock()

    async def rows(self, url: str, query: str, parameters: Mapping[str, object]) -> list[TupleRow]:
        """The rows of a query, each in a transaction of its own."""
        try:
            return await self._rows(url, query, parameters)
        except psycopg.OperationalError:
            if self._connection is None or not self._connection.broken:
                raise
        # A test has cut all connections to the database.
        return await self._rows(url, query, parameters)

    async def _rows(self, url: str, query: str, parameters: Mapping[str, object]) -> list[TupleRow]:
        async with self._opening:
            if self._connection is None or self._connection.closed or self._url != url:
                await self.close()
                self._connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
                self._url = url
        cursor = await self._connection.execute(query.encode(), parameters)
        return await cursor.fetchall()

    async def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
