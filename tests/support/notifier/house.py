"""What surrounds the notifier: an organization, its endpoints, and notifications as the evaluator writes them."""

import asyncio
import itertools
import json
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier.process import run_until
from notifier.worker import POLL_INTERVAL
from runtime.clock import Clock
from runtime.configuration import Configuration, load
from store.deliveries import deliveries
from store.deliveries.deliveries import Attempt, Delivery
from store.endpoints import endpoints
from store.endpoints.endpoints import CreatedEndpoint, NewEndpoint
from store.endpoints.rows import Settings
from store.identity import organizations
from store.postgres.channels import OUTBOX_CHANNEL
from store.postgres.database import Database
from store.tables.notifications import notification, outbox
from store.tables.webhooks import delivery, endpoint
from tests.support.waiting import within
from webhooks.deliveries import DeliveryStatus
from webhooks.secret_box import SecretBox
from webhooks.signing_keys import Scheme, new_signing_key

# The receivers of the tests are on this machine.
LOOPBACK = {
    "TIDEMARK_WEBHOOK_ALLOW_HTTP": "true",
    "TIDEMARK_WEBHOOK_ALLOW_CIDRS": "127.0.0.0/8,::1/128",
    "TIDEMARK_SECRET_KEYS": "test:dGlkZW1hcmsgdGVzdHMgYW5kIG5vdGhpbmcgZWxzZSE=",
}
BOX = SecretBox([("test", b"tidemark tests and nothing else!")])
CUSTOMER = "customer-1"
OFTEN = 0.05  # seconds between the polls of a notifier, for tests that wait for a poll


class House:
    """One organization and the database it lives in."""

    def __init__(self, database: Database, clock: Clock, organization_id: int) -> None:
        self.database = database
        self.clock = clock
        self.organization_id = organization_id
        self._numbers = itertools.count(1)

    @staticmethod
    async def build(database: Database, clock: Clock, name: str = "default") -> "House":
        async with database.transaction() as connection:
            organization_id = await organizations.get_or_create(connection, name, clock.now())
        return House(database, clock, organization_id)

    async def endpoint(
        self, url: str, event_types: tuple[str, ...] = (), *, settings: Settings | None = None
    ) -> CreatedEndpoint:
        """Creates an endpoint."""
        async with self.database.transaction() as connection:
            return await endpoints.create(
                connection,
                self.organization_id,
                NewEndpoint(
                    settings or Settings(url=url, event_types=event_types), new_signing_key(Scheme.HMAC_SHA256)
                ),
                BOX,
                now=self.clock.now(),
            )

    async def notify(self, number: int = 1, *, event_type: str = "alert.reached", hint: bool = True) -> list[str]:
        """Commits notifications with their outbox rows, as the evaluator does; returns their ids."""
        async with self.database.transaction() as connection:
            return await self.write(connection, number, event_type=event_type, hint=hint)

    async def write(
        self,
        connection: AsyncConnection,
        number: int = 1,
        *,
        event_type: str = "alert.reached",
        hint: bool = True,
    ) -> list[str]:
        """Writes notifications in the caller's transaction; without `hint` no NOTIFY is sent."""
        now = self.clock.now()
        ids = [f"ntf_{next(self._numbers):026d}" for _ in range(number)]
        common = {
            "organization_id": self.organization_id,
            "customer_id": CUSTOMER,
            "event_type": event_type,
            "condition_type": "spend_threshold_reached",
            "create_time": now,
        }
        rest = {"alert_id": "alt_1", "gauge_id": uuid.UUID(int=0), "sequence": 1}
        await connection.execute(
            insert(notification),
            [{**common, **rest, "notification_id": id_, "body": body_of(id_)} for id_ in ids],
        )
        await connection.execute(insert(outbox), [{**common, "notification_id": id_} for id_ in ids])
        if hint:
            await connection.execute(text(f"NOTIFY {OUTBOX_CHANNEL}"))
        return ids

    async def deliveries(self) -> list[Delivery]:
        """Every delivery of the organization, newest first."""
        async with self.database.transaction() as connection:
            found = await deliveries.list_page(connection, self.organization_id, limit=100_000, most_examined=100_000)
            return found.items

    async def attempts(self, delivery_id: str) -> list[Attempt]:
        """The attempts of a delivery."""
        async with self.database.transaction() as connection:
            return await deliveries.list_attempts(connection, self.organization_id, delivery_id, limit=1_000)

    async def settled(self, status: DeliveryStatus, number: int) -> list[Delivery]:
        """Waits until `number` deliveries have that status; returns them."""
        async with asyncio.timeout(30):
            while True:
                found = [item for item in await self.deliveries() if item.status is status]
                if len(found) >= number:
                    return found
                await asyncio.sleep(0.02)

    async def attempted(self, number: int) -> list[Delivery]:
        """Waits until every delivery (there is at least one) has `number` attempts; returns them."""
        async with asyncio.timeout(30):
            while True:
                found = await self.deliveries()
                if found and all(item.attempt_count >= number for item in found):
                    return found
                await asyncio.sleep(0.02)

    async def outbox_emptied(self) -> None:
        """Waits until no outbox row is left."""
        async with asyncio.timeout(30):
            while True:
                async with self.database.transaction() as connection:
                    if not await connection.scalar(select(func.count()).select_from(outbox)):
                        return
                await asyncio.sleep(0.02)

    async def make_due(self) -> None:
        """Lets the waiting deliveries be due now, as if their delay had passed."""
        async with self.database.transaction() as connection:
            await lock_endpoints(connection)
            await connection.execute(
                delivery.update()
                .where(delivery.c.next_attempt_time.is_not(None))
                .values(next_attempt_time=text("now()"))
            )

    async def expire_leases(self) -> None:
        """Lets every lease have ended, as if its notifier had died long ago."""
        async with self.database.transaction() as connection:
            await lock_endpoints(connection)
            await connection.execute(
                delivery.update()
                .where(delivery.c.lease_token.is_not(None))
                .values(lease_expire_time=text("now() - interval '1 second'"))
            )

    async def in_flight(self) -> dict[str, int]:
        """The counter of each endpoint, which equals its leased deliveries whenever nothing is being written."""
        async with self.database.transaction() as connection:
            rows = await connection.execute(select(endpoint.c.endpoint_id, endpoint.c.in_flight))
            return {row.endpoint_id: row.in_flight for row in rows}


async def lock_endpoints(connection: AsyncConnection) -> None:
    """Locks every endpoint in the order of the queue: a notifier that runs beside it locks rows of deliveries."""
    await connection.execute(
        select(endpoint.c.endpoint_id)
        .order_by(endpoint.c.organization_id, endpoint.c.endpoint_id)
        .with_for_update(key_share=True)
    )


def body_of(notification_id: str) -> str:
    """The body of a notification of these tests; not all of it ASCII."""
    return json.dumps({"id": notification_id, "type": "alert.reached", "data": "€ 12,50"}, ensure_ascii=False)


def configuration(**changes: str) -> Configuration:
    """A configuration that lets receivers be on this machine; `changes` are settings without their prefix."""
    return load(LOOPBACK | {f"TIDEMARK_{name}": value for name, value in changes.items()})


class Polls:
    """The polls of a running notifier: a barrier for what must not happen."""

    def __init__(self) -> None:
        self._count = 0
        self._counted = asyncio.Event()

    def count(self) -> None:
        """One poll more, and what it found was claimed."""
        self._count += 1
        self._counted.set()

    async def one_more(self) -> None:
        """Waits until a poll has ended that began after this call; the one that ends next may have begun before."""
        end = self._count + 2
        async with within("two polls of the notifier"):
            while self._count < end:
                self._counted.clear()
                await self._counted.wait()


@asynccontextmanager
async def running_notifier(
    house: House,
    settings: Configuration | None = None,
    *,
    database: Database | None = None,
    stop: asyncio.Event | None = None,
    poll_interval: float = POLL_INTERVAL,
    monitoring_socket: socket.socket | None = None,
) -> AsyncIterator[Polls]:
    """A notifier that drains at the end of the block, or when `stop` is set.

    database: what it uses instead of a pool of its own; closed at the end.
    """
    database = database or Database(house.database.url, pool_size=4)
    stop = stop or asyncio.Event()
    polls = Polls()
    task = asyncio.create_task(
        run_until(
            stop,
            settings or configuration(),
            database,
            house.clock,
            poll_interval=poll_interval,
            on_poll=polls.count,
            monitoring_socket=monitoring_socket,
        )
    )
    try:
        yield polls
    finally:
        stop.set()
        async with asyncio.timeout(30):
            await task
        await database.close()
