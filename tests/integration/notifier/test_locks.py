"""The locks of the queue: everything that takes them, at once and in a random order, and never in a circle."""

import asyncio
import contextlib
import dataclasses
import random
from datetime import timedelta

from sqlalchemy import select, text, update

from store.deliveries import claims as delivery_claims
from store.deliveries import leases, outbox, redelivery
from store.deliveries.claims import Claim, ClaimRequest
from store.deliveries.redelivery import Redeliverable
from store.endpoints import lifecycle
from store.postgres.database import Database
from store.tables.webhooks import delivery
from tests.support.notifier.delivery_queue import ALL_TOKENS, counters_match, delivered, failed
from tests.support.notifier.house import CUSTOMER, House, lock_endpoints
from tests.support.server.sharing import own_database
from tests.support.webhooks.attempts import write_results
from webhooks.deliveries import AttemptOutcome, DeliveryStatus, Trigger
from webhooks.health import HealthSignal

pytestmark = own_database

ENDPOINTS = 8
ACTORS = 6
STEPS = 40  # of each actor
LEASE = timedelta(minutes=5)


class Actor:
    """A notifier, or a server, whose transactions are chosen by chance."""

    def __init__(self, house: House, database: Database, endpoints: list[str], seed: int) -> None:
        self.house = House(database, house.clock, house.organization_id)
        self.endpoints = endpoints
        self.choice = random.Random(seed)
        self.held: list[Claim] = []
        self.notify = house.notify

    async def fans_out_and_claims(self) -> None:
        await self.notify(self.choice.randint(1, 4))
        async with self.house.database.transaction() as connection:
            fan_out = await outbox.fan_out(connection, 50)
            if fan_out.created:
                self.held += await delivery_claims.claim(connection, ClaimRequest(20, LEASE))

    async def claims(self) -> None:
        async with self.house.database.transaction() as connection:
            self.held += await delivery_claims.claim(connection, ClaimRequest(20, LEASE))

    async def records_and_claims(self) -> None:
        done, self.held = self.held, []
        records = []
        for claim in done:
            record = delivered(claim)
            if self.choice.random() < 0.3:
                record = failed(claim)
            elif self.choice.random() < 0.05:
                record = dataclasses.replace(
                    failed(claim),
                    outcome=AttemptOutcome.GONE,
                    status=DeliveryStatus.FAILED,
                    delay=None,
                    signal=HealthSignal.GONE,
                )
            records.append(record)
        if records:
            async with self.house.database.transaction() as connection:
                request = ClaimRequest(20, LEASE)
                recorded = await write_results(connection, records, self.choice, request)
            self.held = recorded.claims or []

    async def gives_back(self) -> None:
        done, self.held = self.held, []
        async with self.house.database.transaction() as connection:
            await leases.release(connection, done, delay=timedelta(0))

    async def dies(self) -> None:
        lost, self.held = self.held, []
        async with self.house.database.transaction() as connection:
            # The rows are updated in any order, and an actor that releases orphaned leases locks some of them, too.
            await lock_endpoints(connection)
            await connection.execute(
                update(delivery)
                .where(delivery.c.lease_token.in_({claim.lease_token for claim in lost}))
                .values(lease_expire_time=text("now() - interval '1 second'"))
            )

    async def releases_expired(self) -> None:
        async with self.house.database.transaction() as connection:
            await leases.release_expired(connection)

    async def releases_orphaned(self) -> None:
        # Of the others' leases, too, which their late results then do not find.
        async with self.house.database.transaction() as connection:
            await leases.release_orphaned(connection, dataclasses.replace(ALL_TOKENS, claims=self.held))

    async def switches(self) -> None:
        place = (self.house.organization_id, self.choice.choice(self.endpoints))
        now = self.house.clock.now()
        async with self.house.database.transaction() as connection:
            if self.choice.random() < 0.4:
                await lifecycle.disable_on_request(connection, *place, now=now)
            else:
                await lifecycle.enable(connection, *place, now=now)

    async def sends_again(self) -> None:
        place = (self.house.organization_id, self.choice.choice(self.endpoints))
        async with self.house.database.transaction() as connection:
            endpoint = await lifecycle.lock(connection, *place)
            if endpoint is None or endpoint.state != "ENABLED":
                return
            some = await connection.scalars(
                select(delivery.c.notification_id).where(delivery.c.endpoint_id == place[1]).limit(20)
            )
            wanted = [Redeliverable(one, CUSTOMER, "alert.reached") for one in set(some)]
            await redelivery.make_due(connection, *place, wanted, trigger=Trigger.RECOVERY)

    async def act(self) -> None:
        steps = (
            self.fans_out_and_claims,
            self.claims,
            self.records_and_claims,
            self.records_and_claims,
            self.gives_back,
            self.dies,
            self.releases_expired,
            self.releases_expired,
            self.releases_orphaned,
            self.switches,
            self.sends_again,
        )
        for _ in range(STEPS):
            await self.choice.choice(steps)()


async def deadlocks(database: Database) -> int:
    """How many deadlocks PostgreSQL has broken in this database."""
    async with database.transaction() as connection:
        await connection.execute(text("SELECT pg_stat_force_next_flush()"))
    async with database.transaction() as connection:
        number: int = await connection.scalar(
            text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        )
    return number


async def test_concurrent_releases_claims_results_and_switches_never_deadlock(
    house: House, database_url: str
) -> None:
    endpoints = [
        (await house.endpoint(f"https://example.com/{number}")).endpoint.endpoint_id for number in range(ENDPOINTS)
    ]
    async with contextlib.AsyncExitStack() as stack:
        actors = []
        for seed in range(ACTORS):
            database = Database(database_url, pool_size=2)
            stack.push_async_callback(database.close)
            actors.append(Actor(house, database, endpoints, seed))
        await asyncio.gather(*(actor.act() for actor in actors))
        for actor in actors:
            await actor.gives_back()
    await house.expire_leases()
    async with house.database.transaction() as connection:
        await leases.release_expired(connection)
    assert set((await house.in_flight()).values()) == {0}
    assert await counters_match(house)
    assert await deadlocks(house.database) == 0
