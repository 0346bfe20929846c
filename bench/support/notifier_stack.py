"""A notifier process on a database of its own, the rows that a server would write there, and its memory."""

import asyncio
import base64
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from bench.support.stack import PostgreSQL
from store.migrate import migrate
from store.postgres.channels import OUTBOX_CHANNEL
from tests.support.processes.programs import Program
from webhooks.secret_box import SecretBox, secret_context

ORGANIZATION = 1_000_001
KEY = b"tidemark benchmarks, not secret!"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def notification_id(number: int) -> str:
    """The id of the notification of that number."""
    return f"ntf_{number:026d}"


def body_of(one: str) -> str:
    """A body as long as an alert's."""
    return json.dumps({"id": one, "type": "alert.reached", "data": {"alert": "a" * 400, "transitions": "t" * 400}})


class QueueDatabase:
    """Writes the rows that the server writes, without a server."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection
        self._box = SecretBox([("bench", KEY)])
        self.next_number = 1
        self._endpoints = itertools.count(1)

    async def endpoints(self, wanted: Iterable[tuple[str, str]]) -> None:
        """Creates endpoints: URLs and the event type that each wants."""
        async with self._connection.transaction():
            for url, event_type in wanted:
                endpoint_id = f"whe_{next(self._endpoints):026d}"
                await self._connection.execute(
                    "INSERT INTO endpoint (organization_id, endpoint_id, url, event_types, state, create_time)"
                    " VALUES (%s, %s, %s, %s, 'ENABLED', now())",
                    (ORGANIZATION, endpoint_id, url, [event_type]),
                )
                sealed = self._box.seal(SECRET.encode(), secret_context(ORGANIZATION, endpoint_id, 1))
                await self._connection.execute(
                    "INSERT INTO endpoint_secret"
                    " (organization_id, endpoint_id, sequence, ciphertext, key_id, create_time)"
                    " VALUES (%s, %s, 1, %s, 'bench', now())",
                    (ORGANIZATION, endpoint_id, sealed),
                )

    async def commit(self, number: int, event_type: str) -> float:
        """Commits notifications with their outbox rows; returns when they were committed."""
        await self._write(number, event_type)
        return time.monotonic()

    async def unfinished(self) -> int:
        """How many outbox rows and deliveries wait or are in progress."""
        cursor = await self._connection.execute(
            "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM delivery_live)"
        )
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def finished(self, timeout: float) -> None:
        """Waits until nothing waits and nothing is in progress. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while True:
                if not await self.unfinished():
                    return
                await asyncio.sleep(0.05)

    async def waiting_ids(self) -> set[str]:
        """The notifications whose deliveries are not finished."""
        cursor = await self._connection.execute(
            "SELECT notification_id FROM outbox UNION SELECT notification_id FROM delivery_live"
        )
        return {str(row[0]) for row in await cursor.fetchall()}

    async def flood(self, event_type: str, number: int) -> None:
        """Commits deliveries to the endpoint that wants that type, as a fan-out long ago would have left them."""
        first = self.next_number
        await self._write(number, event_type, deliveries=True)
        assert self.next_number == first + number
        await self._connection.execute("ANALYZE")

    async def _write(self, number: int, event_type: str, *, deliveries: bool = False) -> None:
        rows = [(notification_id(self.next_number + index), event_type) for index in range(number)]
        self.next_number += number
        async with self._connection.transaction(), self._connection.cursor() as cursor:
            async with cursor.copy(
                "COPY notification (organization_id, customer_id, notification_id, alert_id, gauge_id, sequence,"
                " event_type, condition_type, create_time, body) FROM STDIN"
            ) as copy:
                now = datetime.now(UTC)
                for one, kind in rows:
                    gauge = "00000000-0000-0000-0000-000000000000"
                    await copy.write_row(
                        (ORGANIZATION, "bench", one, "alt_1", gauge, 1, kind, "usage", now, body_of(one))
                    )
            if deliveries:
                await cursor.execute(
                    "INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id,"
                    " event_type, status, create_time, next_attempt_time)"
                    " SELECT organization_id, 'whd_' || substr(notification_id, 5), endpoint_id, notification_id,"
                    " customer_id, event_type, 'PENDING', now(), now() - interval '1 hour'"
                    " FROM notification JOIN endpoint USING (organization_id)"
                    " WHERE event_type = %s AND event_type = ANY (event_types)",
                    (event_type,),
                )
            else:
                await cursor.execute(
                    "INSERT INTO outbox (organization_id, customer_id, notification_id, event_type, condition_type,"
                    " create_time) SELECT %s, 'bench', unnest(%s::text[]), %s, 'usage', now()",
                    (ORGANIZATION, [one for one, _ in rows], event_type),
                )
            await cursor.execute(f"NOTIFY {OUTBOX_CHANNEL}".encode())


@asynccontextmanager
async def notifier_on(
    postgresql: PostgreSQL, name: str, settings: dict[str, str] | None = None
) -> AsyncIterator[tuple[QueueDatabase, Program]]:
    """A notifier process on a new database of that name."""
    url = postgresql.create_database(name)
    await asyncio.to_thread(migrate, url)
    keys = {"TIDEMARK_SECRET_KEYS": f"bench:{base64.b64encode(KEY).decode()}", "TIDEMARK_DRAIN_TIMEOUT_SECONDS": "1"}
    async with contextlib.AsyncExitStack() as exits:
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True)
        exits.push_async_callback(connection.close)
        program = await postgresql.notifier(exits, url, keys | (settings or {}))
        yield QueueDatabase(connection), program


def resident(pid: int) -> int | None:
    """The bytes of memory that a process has in use; None where the system does not say."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) * 1024
