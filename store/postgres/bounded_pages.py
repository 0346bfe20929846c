"""Pages of long lists, which read a bounded number of rows, whatever the filters are.

A list has an order, and indexes that return its rows in this order: each range of the list is one part of an index.
The filters that no index answers are checked row by row, on at most MAX_EXAMINED rows for one page. A page that ends
there may have few rows, or none, although more follow; its end is the position from which the next page continues.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from psycopg.rows import dict_row

from runtime.turns import Slices
from store.postgres.counting import MAX_TOTAL_SIZE
from store.postgres.database import Connection, driver

MAX_EXAMINED = 10_000  # rows that one page reads at most
DECODED_AT_ONCE = 50  # rows that the driver decodes without a pause


@dataclass(frozen=True)
class ListScan:
    """The rows of one list, as SQL.

    table: may be followed by an alias. order: the columns of the list's order, which identify a row of the list.
    ranges: conditions, each answered by an index that has the columns of the order next; no row meets two of them.
    filters: conditions on `columns` that every row must meet. lateral: a join that finds one row for each row of the
    list, after the filters; also: its columns.
    """

    table: str
    columns: Sequence[str]
    order: tuple[str, str]
    ranges: Sequence[str]
    parameters: Mapping[str, Any]
    filters: Sequence[str] = ()
    newest_first: bool = False
    lateral: str = ""
    also: Sequence[str] = ()


Position = TypeVar("Position", bound=tuple[Any, Any])
Item = TypeVar("Item")


@dataclass(frozen=True)
class BoundedPage(Generic[Item, Position]):
    """What a page found. end: the position up to which rows were examined, if more may follow."""

    items: list[Item]
    end: Position | None


# row_number counts what was examined. The last row that may be examined is returned even if no filter lets it pass,
# because it is where the next page begins. A subquery with a limit is read only as far as the outer limit needs.
_PAGE = """
SELECT {shown}, page.matches, page.examined
FROM (
    SELECT page.*, ({filters}) AS matches, row_number() OVER (ORDER BY {order}) AS examined
    FROM ({rows}) AS page
    ORDER BY {order}
    LIMIT %(most_examined)s
) AS page
{lateral}
WHERE page.matches OR page.examined = %(most_examined)s
ORDER BY {order}
LIMIT %(limit)s
"""

_COUNT = "SELECT count(*) FROM (SELECT FROM ({rows}) AS page WHERE {filters} LIMIT %(most)s) AS found"


async def read(
    connection: Connection,
    organization_id: int,
    scan: ListScan,
    item_of: Callable[[Mapping[str, Any]], Item],
    *,
    after: Position | None,
    limit: int,
    most_examined: int | None = None,
) -> BoundedPage[Item, Position]:
    """Up to `limit` items of a list after that position, each made of a row by column name.

    most_examined: rows that are read at most; None: MAX_EXAMINED.
    """
    most = MAX_EXAMINED if most_examined is None else most_examined
    parameters = {**scan.parameters, "limit": limit, "most_examined": most}
    if after is not None:
        parameters |= {"after_0": after[0], "after_1": after[1]}
    found, last = list[Item](), None
    slices = Slices(organization_id)
    async with (await driver(connection)).cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_page_statement(scan, is_first=after is None), parameters)
        while rows := await cursor.fetchmany(DECODED_AT_ONCE):
            await slices.begin()
            for row in rows:
                last = row
                if row["matches"]:
                    found.append(item_of(row))
                    await slices.pause()
    if last is None or last["examined"] < most or len(found) == limit:
        return BoundedPage(found, None)
    return BoundedPage(found, cast("Position", tuple(last[column] for column in scan.order)))


async def count(connection: Connection, scan: ListScan, most: int = MAX_TOTAL_SIZE) -> int:
    """How many rows the list has; `most` for that many or more."""
    names = ", ".join(scan.columns)
    rows = " UNION ALL ".join(f"SELECT {names} FROM {scan.table} WHERE {one}" for one in scan.ranges)
    statement = _COUNT.format(rows=rows, filters=" AND ".join(scan.filters) or "true")
    cursor = await (await driver(connection)).execute(statement.encode(), {**scan.parameters, "most": most})
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


def _page_statement(scan: ListScan, *, is_first: bool) -> bytes:
    return _PAGE.format(
        shown=", ".join([*(f"page.{column}" for column in scan.columns), *scan.also]),
        filters=" AND ".join(scan.filters) or "true",
        order=_order(scan, "page."),
        rows=_rows(scan, is_first=is_first),
        lateral=scan.lateral,
    ).encode()


def _rows(scan: ListScan, *, is_first: bool) -> str:
    """The rows of all ranges after the position, in order.

    Each range has a limit of its own, so that it is read from its index in order, and the ranges are merged.
    Otherwise PostgreSQL would sort all of their rows.
    """
    after = ""
    if not is_first:
        sign = "<" if scan.newest_first else ">"
        after = f" AND ({', '.join(scan.order)}) {sign} (%(after_0)s, %(after_1)s)"
    names, order = ", ".join(scan.columns), _order(scan)
    return " UNION ALL ".join(
        f"(SELECT {names} FROM {scan.table} WHERE {one}{after} ORDER BY {order} LIMIT %(most_examined)s)"
        for one in scan.ranges
    )


def _order(scan: ListScan, alias: str = "") -> str:
    direction = " DESC" if scan.newest_first else ""
    return ", ".join(f"{alias}{column}{direction}" for column in scan.order)
