"""Reads of all shards that go on while a node of the cluster is away: each shard by itself.

A statement over all shards fails when one node does not answer. Then readers of queues and timers that lie by
customer ask each shard by itself, over a connection of its own, and get what the others have, until some seconds
after all nodes have answered again. That costs a connection for each shard, so it is not done as long as all answer.
"""

import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.failures import NODE_LOST, STATEMENT_CANCELED, failure_of

SECONDS = 10.0  # for which shards are read one by one after a node did not answer
CONNECT_SECONDS = 2  # in which a node has to accept the connection for a shard

_until: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()

_BOUND = text("SELECT set_config('citus.node_connection_timeout', :most, true)")
_READ = text("SELECT success, result FROM run_command_on_colocated_placements(:first, :second, :command)")


def is_needed(connection: AsyncConnection) -> bool:
    """Whether a node did not answer a while ago."""
    return _until.get(connection.sync_engine, 0.0) > time.monotonic()


@contextmanager
def noticing(connection: AsyncConnection) -> Iterator[None]:
    """Notes if a node does not answer in the block; the next transactions then read each shard by itself."""
    try:
        yield
    except (SQLAlchemyError, psycopg.Error) as error:
        if failure_of(error) in (NODE_LOST, STATEMENT_CANCELED):
            _until[connection.sync_engine] = time.monotonic() + SECONDS
        raise


async def rows(connection: AsyncConnection, first: str, second: str, statement: str) -> list[dict[str, Any]]:
    """The rows of a statement on each pair of shards of two tables; `%s` stands for each of both in turn.

    The statement must contain no value of a caller but numbers, and those of `literal` and `literals`. Shards of
    nodes that do not answer have no rows; then the next transactions read each shard by itself, too.
    """
    command = f"SELECT json_agg(found) FROM ({statement}) AS found"
    parameters = {"first": first, "second": second, "command": command}
    await connection.execute(_BOUND, {"most": f"{CONNECT_SECONDS}s"})
    found = (await connection.execute(_READ, parameters)).all()
    if not all(answers for answers, _ in found):
        _until[connection.sync_engine] = time.monotonic() + SECONDS
    return [row for answers, result in found if answers and result for row in json.loads(result)]


def literal(value: datetime) -> str:
    """A time in the statement of `rows`, which has no parameters."""
    return f"'{value.isoformat()}'::timestamptz"


def literals(values: Collection[int]) -> str:
    """Numbers in the statement of `rows`."""
    return "'{" + ",".join(str(int(one)) for one in values) + "}'::bigint[]"
