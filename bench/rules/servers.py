"""Servers on databases with many alerts, which are written directly into the database to save time."""

import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg

from bench.rules import requests
from bench.rules.changes import Changed, Changes
from bench.rules.streaming import Clients, Streaming
from bench.rules.usage import FirstEvent, Register
from bench.support import cpu
from bench.support.sending import create_alerts
from bench.support.stack import PostgreSQL
from generated.tidemark.v1 import alert_pb2
from store.tables.accounts import customer
from store.tables.alerts import alert
from tests.support.processes.programs import Program

_PATIENCE = 60.0  # seconds for the backfill of an alert
# Columns of a copied alert that differ from the alert that it is copied from.
_OWN = {
    "alert_id": "'alt_' || md5(number::text)",
    "customer_id": "'customer-' || lpad(number::text, 6, '0')",
    "changed_epoch": "o.epoch + 1",
    "watching_epoch": "o.epoch + 1",
    "create_epoch": "o.epoch + 1",
}


@dataclass(frozen=True)
class Data:
    """What a database holds when its server starts.

    customers: how many have usage; they also have gauges, which an alert of all customers watches. events_each: how
    many events of each are stored. grouped: whether these have the properties GROUP_KEYS. alerts: how many customers
    have an alert of their own; those beyond `customers` exist, but have no usage. more: other alerts.
    """

    customers: int
    events_each: int = 1
    grouped: bool = False
    alerts: int = 0
    more: tuple[alert_pb2.Alert, ...] = ()


class Server:
    """A server on such a database."""

    def __init__(self, program: Program, url: str, postmaster_pid: int, clients: Clients, data: Data) -> None:
        self.program = program
        self.url = url
        # Of the last start: seconds until the first acknowledgement, and of CPU that the server used until then.
        self.first_acknowledgement = 0.0
        self.starting_cpu = 0.0
        self._postmaster_pid = postmaster_pid
        self._clients = clients
        self._data = data

    @property
    def address(self) -> str:
        """host:port"""
        return self.program.address.server

    def streaming(self) -> contextlib.AbstractAsyncContextManager[Streaming]:
        """Streams usage of the customers during a block."""
        pids = self.program.pid, self._postmaster_pid
        return self._clients.streaming(self.address, pids, self._data.customers, grouped=self._data.grouped)

    async def meet_customers(self) -> float:
        """Sends one event of each customer; returns the seconds until the last acknowledgement."""
        register = Register(self.address, f"met-{time.monotonic_ns()}", self._data.customers, 1, self._data.grouped)
        return await (await self._clients.calls.prepare(register))()

    async def change(self, changes: Changes) -> Changed:
        """Runs the calls in the process of the clients."""
        run, meter = await self._clients.calls.prepare(changes), self.meter()
        changed = await run()
        changed.cpu = meter.used()
        return changed

    def meter(self) -> cpu.Meter:
        """Measures the CPU time of the server and of PostgreSQL from now on."""
        return cpu.Meter(self._postmaster_pid, self.program.pid)

    async def stop(self) -> None:
        """Stops the server."""
        await self.program.stop()

    async def start(self) -> None:
        """Starts the server again, which was stopped, and waits for its first acknowledgement."""
        first = FirstEvent(self.address, f"started-{time.monotonic_ns()}", 0)
        run = await self._clients.calls.prepare(first)
        started = time.perf_counter()
        await self.program.start()
        self.first_acknowledgement = await run() - started
        self.starting_cpu = cpu.seconds(self.program.pid)


@asynccontextmanager
async def server(postgresql: PostgreSQL, clients: Clients, name: str, data: Data) -> AsyncIterator[Server]:
    """A server on a new database with `data`. It has acknowledged one event, and has met no other customer."""
    url = postgresql.create_database(f"bench_rules_{name}")
    async with contextlib.AsyncExitStack() as exits:
        program = await postgresql.server(exits, url)
        made = Server(program, url, postgresql.postmaster_pid(), clients, data)
        await create_alerts(made.address, [requests.for_all(), *data.more], _PATIENCE)
        register = Register(made.address, "first", data.customers, data.events_each, data.grouped)
        await (await clients.calls.prepare(register))()
        if data.alerts:
            await create_alerts(made.address, [requests.for_customer(0)], _PATIENCE)
        await made.stop()
        with psycopg.connect(url) as connection:
            copy_alert(connection, data.alerts)
            copy_customer(connection, data.customers, data.alerts)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        await made.start()
        yield made


def copy_alert(connection: psycopg.Connection[tuple[object, ...]], alerts: int) -> None:
    """Copies the alert of the first customer to the next customers, until so many have one.

    The server itself has stored the row that is copied, so all columns are right. The copies belong to a new epoch of
    the organization, so that the gauges are evaluated for them.
    """
    columns = list(alert.c.keys())
    values = ", ".join(_OWN.get(name, f"a.{name}") for name in columns)
    connection.execute(
        f"INSERT INTO alert ({', '.join(columns)}) SELECT {values}"
        " FROM alert a JOIN organization o USING (organization_id), generate_series(1, %s - 1) AS number"
        " WHERE a.customer_id IS NOT NULL".encode(),
        (alerts,),
    )
    connection.execute("UPDATE organization SET epoch = epoch + 1")


def copy_customer(connection: psycopg.Connection[tuple[object, ...]], first: int, end: int) -> None:
    """Copies a customer that usage has registered, so that the customers of these numbers exist."""
    columns = list(customer.c.keys())
    values = ", ".join(_OWN["customer_id"] if name == "customer_id" else f"c.{name}" for name in columns)
    connection.execute(
        f"INSERT INTO customer ({', '.join(columns)}) SELECT {values}"
        " FROM (SELECT * FROM customer LIMIT 1) AS c, generate_series(%s::bigint, %s - 1) AS number".encode(),
        (first, end),
    )
