"""Reads of all shards that go on while a node of the cluster is away: each shard by itself.

A statement over all shards fails when one node does not answer. Then, for some seconds, readers of queues that lie by
customer ask each shard by itself, over a connection of its own, and get what the others have. That costs a connection
for each shard, so it is not done as long as all nodes answer.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from store.postgres.failures import NODE_LOST, STATEMENT_CANCELED, failure_of

SECONDS = 10.0  # for which shards are read one by one after a node did not answer

_until: WeakKeyDictionary[Engine, float] = WeakKeyDictionary()

_READ = text("SELECT result FROM run_command_on_colocated_placements(:first, :second, :command) WHERE success")


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

    The statement must contain no value of a caller but numbers. Shards of nodes that do not answer have no rows.
    """
    command = f"SELECT json_agg(found) FROM ({statement}) AS found"
    parameters = {"first": first, "second": second, "command": command}
    found = await connection.scalars(_READ, parameters)
    return [row for result in found if result for row in json.loads(result)]
