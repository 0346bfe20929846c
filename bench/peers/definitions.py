"""The peers: what each is, what it promises, and how it is run."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.peers import stores
from bench.peers.stores import Maker
from bench.support.environment import Environment

TIDEMARK = "tidemark"
STORED = 1_000_000  # events of a period: a month of less than one event in two seconds

# Bytewax has an environment of its own: it has no wheel for some versions of Python.
CLIENTS = Environment("peers", ("asyncpg==0.32.0", "hiredis==3.5.0", "uvloop"))
_BYTEWAX = Environment("bytewax", ("bytewax==0.21.1", "uvloop"))


@dataclass(frozen=True)
class Definition:
    """A peer. module: its script. environment: where the script runs; None: this one.

    durable: whether an acknowledged event survives a crash and a loss of power, as its documentation says; one
    `kill -9` may find nothing wrong by chance. stored: events that are in its store before the measurement.
    """

    title: str
    module: str
    make: Maker
    environment: Environment | None
    durable: bool
    stored: int = 0


PEERS: Mapping[str, Definition] = {
    TIDEMARK: Definition("Tidemark", "tidemark", stores.server, None, True),
    "one_transaction": Definition(
        "one transaction an event, PostgreSQL", "one_transaction", stores.database, CLIENTS, True
    ),
    "polling": Definition("SUM … GROUP BY each second, PostgreSQL", "polling", stores.database, CLIENTS, True),
    "polling_stored": Definition(
        "SUM …, a million events stored",
        "polling",
        stores.database,
        CLIENTS,
        True,
        STORED,
    ),
    "redis_always": Definition(
        "Redis script, appendfsync always",
        "redis_script",
        stores.redis("--appendonly", "yes", "--appendfsync", "always"),
        CLIENTS,
        True,
    ),
    "redis_everysec": Definition(
        "Redis script, appendfsync everysec",
        "redis_script",
        stores.redis("--appendonly", "yes", "--appendfsync", "everysec"),
        CLIENTS,
        False,
    ),
    "redis": Definition(
        "Redis script, as installed",
        "redis_script",
        stores.redis(),
        CLIENTS,
        False,
    ),
    "bytewax": Definition("Bytewax, in memory", "with_bytewax", stores.no_store, _BYTEWAX, False),
}
