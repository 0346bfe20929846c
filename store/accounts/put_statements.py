"""The statements of puts: facts of many callers are confirmed, changed or stored in one statement each.

A fact that is stored already, and one that changes nothing by which usage is routed, takes no lock of the
organization, because that lock stops ingest (`StatedTable.put_unlocked`). The others are stored under the lock, by a
statement of their own table that contains `StatedTable.upsert`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import orjson
from psycopg.rows import dict_row
from sqlalchemy import RowMapping

from store.postgres.database import DriverConnection

COLLATED = 'COLLATE "C"'
TEXT = f"text {COLLATED}"
TIME = "timestamptz"
CYCLE = {"anchor_time": TIME, "cadence": TEXT, "interval_count": "integer", "time_zone": TEXT}

# The row of a fact, by the names of its columns.
FactRow = Mapping[str, Any] | RowMapping

# Rows that other transactions hold are left out: two of these statements lock theirs in no common order. A row whose
# change needs the lock of the organization is not locked: a row lock alone makes the commit wait for the disk. The
# subquery with LIMIT takes each row by its key; a join may read all rows of the organization instead, because
# PostgreSQL expects a hundredth of the table for any organization, and 100 facts in any JSON.
_PUT_UNLOCKED = """
WITH {input}, found AS MATERIALIZED (
    SELECT i.position, t.row, {t_columns}, t.as_of_time > i.as_of_time AS superseded, {same} AS same,
           {same_locked} AS same_locked,
           EXISTS (SELECT FROM customer_evaluation e
                   WHERE e.organization_id = t.organization_id AND e.customer_id = t.customer_id) AS noted
    FROM input i CROSS JOIN LATERAL (
        SELECT t.ctid AS row, t.* FROM {table} t
        WHERE t.organization_id = %(organization_id)s AND {is_key}
            AND ({same_locked} OR t.as_of_time > i.as_of_time)
        LIMIT 1 FOR UPDATE SKIP LOCKED
    ) AS t
), changed AS (
    UPDATE {table} t SET {assignments}, as_of_time = i.as_of_time,
        update_time = CASE WHEN f.same THEN t.update_time ELSE %(now)s END
    FROM found f JOIN input i USING (position)
    WHERE t.ctid = f.row AND f.same_locked AND f.superseded IS NOT TRUE
        AND (f.same OR (%(change)s AND NOT EXISTS (
            SELECT FROM erasure_job j
            WHERE j.organization_id = t.organization_id AND j.customer_id = t.customer_id
        )))
    RETURNING f.position, {t_columns}, f.noted, f.same, {before}
)
SELECT position, false AS superseded, noted, {columns}, same, {before_columns} FROM changed
UNION ALL SELECT position, superseded IS TRUE, noted, {columns}, superseded IS TRUE, {columns}
FROM found WHERE superseded OR NOT (same OR %(change)s)
"""


@dataclass(frozen=True)
class StatedTable:
    """A table of facts that callers put.

    key: its primary key behind the organization. stated: the columns that the caller states, with their types.
    unlocked: those of them that change without the lock. unrouted: those that no router reads.
    followed: other columns, which follow from these, each with its value in a new row, and in a row `t` that gets the
    values of `excluded`, where {changed_epoch} stands for its new one.
    """

    name: str
    key: tuple[str, ...]
    stated: Mapping[str, str]
    unlocked: frozenset[str]
    unrouted: frozenset[str]
    followed: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns of a stored fact that callers see."""
        return *self.key, *self.stated, "as_of_time", "create_time", "update_time"

    def listed(self, prefix: str = "") -> str:
        """`columns` for a statement."""
        return ", ".join(prefix + name for name in self.columns)

    @property
    def input(self) -> str:
        """A table `input` with the facts that `encoded` has encoded, in the parameter `facts`."""
        types = {**dict.fromkeys(self.key, TEXT), **self.stated, "as_of_time": TIME}
        defined = ", ".join(f"{name} {kind}" for name, kind in types.items())
        return (
            "input AS MATERIALIZED"
            f" (SELECT * FROM json_to_recordset(%(facts)s::json) AS i (position integer, {defined}))"
        )

    def same(self, left: str, right: str, *, but: frozenset[str] = frozenset()) -> str:
        """A condition: two rows state the same, in all columns but some."""
        names = [name for name in self.stated if name not in but]
        return "(" + " AND ".join(f"{left}.{name} IS NOT DISTINCT FROM {right}.{name}" for name in names) + ")"

    def same_routes(self, left: str, right: str) -> str:
        """A condition: two rows state the same in all columns that routers read."""
        return self.same(left, right, but=self.unrouted)

    def is_key(self, left: str, right: str) -> str:
        """A condition: two rows have the same key."""
        return " AND ".join(f"{left}.{name} = {right}.{name}" for name in self.key)

    @property
    def before(self) -> str:
        """A table `before` with the stored rows of the facts in `input`, each taken by its key."""
        return (
            f"before AS MATERIALIZED (SELECT {self.listed('t.')} FROM input i CROSS JOIN LATERAL ("
            f"SELECT * FROM {self.name} t WHERE t.organization_id = %(organization_id)s"
            f" AND {self.is_key('t', 'i')} LIMIT 1) AS t)"
        )

    def either(self, first: str, second: str) -> str:
        """`columns` of the first of two rows that may be missing; it is missing where its key is."""
        missing = f"{first}.{self.key[0]} IS NULL"
        return ", ".join(
            f"CASE WHEN {missing} THEN {second}.{name} ELSE {first}.{name} END AS {name}" for name in self.columns
        )

    def before_columns(self, row: str) -> str:
        """`columns` of a row before its change, as `before_of` reads them."""
        return ", ".join(f"{row}.{name} AS before_{name}" for name in self.columns)

    def before_of(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        """The columns that were stored before, of a row with `before_columns`; None if nothing was stored."""
        if row[f"before_{self.key[0]}"] is None:
            return None
        return {name: row[f"before_{name}"] for name in self.columns}

    @property
    def upsert(self) -> str:
        """Stores rows of `input`, unless newer facts are stored; a condition on `i` follows in place of {wanted}."""
        stated = ", ".join((*self.stated, "as_of_time"))
        assignments = ", ".join(f"{name} = excluded.{name}" for name in (*self.stated, "as_of_time"))
        new = "".join(f", {value}" for value, _ in self.followed.values())
        epoch = f"CASE WHEN {self.same_routes('t', 'excluded')} THEN t.changed_epoch ELSE excluded.changed_epoch END"
        later = "".join(
            f", {name} = {value.replace('{changed_epoch}', epoch)}" for name, (_, value) in self.followed.items()
        )
        return f"""
            INSERT INTO {self.name} AS t (
                organization_id, {", ".join(self.key)}, {stated}, create_time, update_time,
                {", ".join(("changed_epoch", *self.followed))}
            )
            SELECT %(organization_id)s, {", ".join(f"i.{name}" for name in self.key)},
                   {", ".join(f"i.{name}" for name in (*self.stated, "as_of_time"))}, %(now)s, %(now)s, %(epoch)s{new}
            FROM input i WHERE {{wanted}} ORDER BY {", ".join(f"i.{name}" for name in self.key)}
            ON CONFLICT (organization_id, {", ".join(self.key)}) DO UPDATE SET {assignments},
                update_time = excluded.update_time,
                changed_epoch = {epoch}{later}
            WHERE t.as_of_time IS NULL OR t.as_of_time <= excluded.as_of_time
            RETURNING {self.listed("t.")}
        """

    @cached_property
    def _put_unlocked(self) -> bytes:
        return _PUT_UNLOCKED.format(
            input=self.input,
            table=self.name,
            columns=self.listed(),
            t_columns=self.listed("t."),
            before=self.before_columns("f"),
            before_columns=self.listed("before_"),
            same=self.same("t", "i"),
            same_locked=self.same("t", "i", but=self.unlocked),
            is_key=self.is_key("t", "i"),
            assignments=", ".join(f"{name} = i.{name}" for name in sorted(self.unlocked)),
        ).encode()

    async def put_unlocked(
        self,
        connection: DriverConnection,
        organization_id: int,
        facts: Sequence[Mapping[str, Any]],
        now: datetime,
        *,
        change: bool,
    ) -> dict[int, dict[str, Any]]:
        """Puts those facts that need no lock of the organization; returns the stored rows, by the index of the fact.

        These are facts that are stored already, facts that change only `unlocked` columns, and older ones, which
        change nothing (superseded). noted: the customer still has to be evaluated on an earlier put. same: nothing
        but as_of_time has changed; otherwise `before_of` reads what was stored before.

        change: false, facts that change anything are not put, and returned as if they were, with their stored rows.
        """
        parameters = {"organization_id": organization_id, "now": now, "facts": encoded(facts), "change": change}
        return await fetched(connection, self._put_unlocked, parameters)


def encoded(facts: Sequence[Mapping[str, Any]]) -> str:
    """Facts as the JSON of `StatedTable.input`."""
    rows = [{"position": position, **fact} for position, fact in enumerate(facts)]
    # orjson knows no Decimal: `default` writes them as text, which is exact.
    return orjson.dumps(rows, default=str).decode()


async def fetched(
    connection: DriverConnection, statement: bytes, parameters: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    """The rows of a statement by their position."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, parameters)
        return {row["position"]: row for row in await cursor.fetchall()}
