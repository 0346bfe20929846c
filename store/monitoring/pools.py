"""The metrics of a process's connections to the database."""

from collections.abc import Mapping

from runtime.fair_semaphore import FairSemaphore
from runtime.monitoring.instruments import Instruments
from store.postgres.database import Database
from store.postgres.lock_watch import LockWatch


def add_pool(instruments: Instruments, database: Database, lock_watch: LockWatch) -> None:
    """Adds the pool of the process."""
    gauge, counter = instruments.gauge, instruments.counter
    gauge("tidemark_database_pool_size", "Connections that the pool may open.", lambda: database.pool_size)
    gauge("tidemark_database_pool_in_use", "Connections in use.", lambda: database.in_use)
    gauge("tidemark_database_pool_waiting", "Tasks that wait for a connection.", lambda: database.waiting)
    counter("tidemark_database_pool_waits_total", "Requests for a connection.", lambda: database.waits)
    counter(
        "tidemark_database_pool_wait_seconds_total",
        "Time of all requests for a connection.",
        lambda: database.wait_seconds,
    )
    gauge(
        "tidemark_database_longest_transaction_seconds",
        "Age of the oldest open transaction of this process.",
        database.longest_transaction,
    )
    counter(
        "tidemark_database_failures_total",
        "Transactions that a failure of the database ended, by kind.",
        lambda: {(kind,): number for kind, number in database.failures.items()},
        labels=("failure",),
    )
    counter(
        "tidemark_database_lock_waits_total",
        "Waits for locks of other sessions, of a second and more.",
        lambda: lock_watch.waits,
    )


def add_gates(instruments: Instruments, gates: Mapping[str, FairSemaphore]) -> None:
    """Adds the parts of the pool that organizations share, by their names."""
    gauge, counter = instruments.gauge, instruments.counter
    gauge(
        "tidemark_gate_seats",
        "Connections that a part of the service may use at the same time.",
        lambda: {(name,): gate.seats for name, gate in gates.items()},
        labels=("gate",),
    )
    gauge(
        "tidemark_gate_in_use",
        "Of these, those in use.",
        lambda: {(name,): gate.seats - gate.free for name, gate in gates.items()},
        labels=("gate",),
    )
    gauge(
        "tidemark_gate_waiting",
        "Tasks that wait for one of them.",
        lambda: {(name,): gate.waiting for name, gate in gates.items()},
        labels=("gate",),
    )
    counter(
        "tidemark_gate_waits_total",
        "Tasks that had to wait for one of them.",
        lambda: {(name,): gate.waits for name, gate in gates.items()},
        labels=("gate",),
    )
    counter(
        "tidemark_gate_wait_seconds_total",
        "Time of all these waits.",
        lambda: {(name,): gate.wait_seconds for name, gate in gates.items()},
        labels=("gate",),
    )
