"""The statements that the code under test really runs, and how many rows PostgreSQL reads for each of them."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg

# Those that Tidemark recommends. A server with PostgreSQL's own reads all rows of a short list, and sorts them.
_RECOMMENDED = "SET LOCAL jit = off; SET LOCAL random_page_cost = 1.1"


@dataclass(frozen=True)
class Cost:
    """What one execution of a statement reads.

    rows: of tables, also those that a filter leaves out. mismatches: pairs of rows that joins compared in vain.
    by_table: the rows of each table.
    """

    statement: str
    rows: int
    mismatches: int
    buffers: int
    milliseconds: float
    by_table: Mapping[str, float]


@dataclass
class Statements:
    """Statements with their parameters, in the order of their execution."""

    executed: list[tuple[str, Any]] = field(default_factory=list)

    def costs(self, url: str, settings: str = _RECOMMENDED) -> list[Cost]:
        """Runs each of them again under EXPLAIN ANALYZE, in a transaction with `settings` that is rolled back."""
        with psycopg.connect(url) as connection:
            connection.execute(settings.encode())
            found = [_cost(connection, statement, parameters) for statement, parameters in self.executed]
            connection.rollback()
        return found


async def analyze(url: str, tables: str) -> None:
    """Gathers statistics of tables. Not in a transaction: Citus refuses that."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f"ANALYZE {tables}".encode())


@contextlib.contextmanager
def recorded(is_wanted: Any = lambda: True) -> Iterator[Statements]:
    """Records the statements of this process that read or write rows. is_wanted: asked at each of them."""
    statements = Statements()
    original = psycopg.AsyncCursor.execute

    async def execute(cursor: Any, query: Any, parameters: Any = None, **options: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else str(query)
        if is_wanted() and text.split(None, 1)[0].upper() in ("SELECT", "WITH") and "set_config" not in text:
            statements.executed.append((text, parameters))
        return await original(cursor, query, parameters, **options)

    psycopg.AsyncCursor.execute = execute  # type: ignore[method-assign,assignment]
    try:
        yield statements
    finally:
        psycopg.AsyncCursor.execute = original  # type: ignore[method-assign]


def _cost(connection: psycopg.Connection[Any], statement: str, parameters: Any) -> Cost:
    explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}".encode()
    row = connection.execute(explained, parameters).fetchone()
    assert row is not None, "a plan is one row"
    [plan] = row[0]
    nodes = list(_nodes(plan["Plan"]))
    rows = sum(_rows(node) for node in nodes)
    mismatches = sum(node.get("Rows Removed by Join Filter", 0) * node["Actual Loops"] for node in nodes)
    buffers = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    by_table = defaultdict[str, float](float)
    for node in nodes:
        by_table[node.get("Relation Name", "")] += _rows(node)
    return Cost(statement, round(rows), round(mismatches), buffers, plan["Execution Time"], by_table)


# Nodes that read rows of a table. A bitmap of an index is read again as rows of its table.
_READING = ("Seq Scan", "Index Scan", "Index Only Scan", "Bitmap Heap Scan", "Tid Scan", "Sample Scan")


def _rows(node: dict[str, Any]) -> float:
    if node["Node Type"] not in _READING:
        return 0
    left_out = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + left_out) * node["Actual Loops"])


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)
