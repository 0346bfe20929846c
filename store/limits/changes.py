"""Changes of limits: put and delete, each with notes of the customers that have to be evaluated."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from evaluator.aggregation import Aggregation
from evaluator.ids import digest_of
from store.accounts import quiet_puts
from store.accounts.customer_evaluations import NOTE, OWN_TIME
from store.accounts.distributed_puts import put_unlocked as put_unlocked_distributed
from store.accounts.put_statements import TEXT, StatedTable, encoded, fetched
from store.accounts.puts import Put, UnlockedPut, is_newer
from store.accounts.quiet_puts import QuietPut
from store.erasures.jobs import CustomerBeingErased
from store.limits import distributed_puts, windows
from store.limits.limits import LimitFact, LimitSubject, StoredLimit, limit_of
from store.postgres.database import DriverConnection
from store.postgres.distributed import on_cluster

# The id of a deleted limit begins so; ids of callers have no control characters. Its natural key follows.
_DELETED = "\x01"
_FIXED = ("customer_id", "plan_id", "currency", "metric_id", "groups")


class LimitFixed(Exception):
    """A put changes the subject of a limit, which cannot change."""

    def __init__(self, limit_id: str, field: str) -> None:
        super().__init__(limit_id, field)
        self.limit_id = limit_id
        self.field = field  # holder, access, groups or window


class LimitExists(Exception):
    """Another limit has the same subject."""

    def __init__(self, limit_id: str) -> None:
        super().__init__(limit_id)
        self.limit_id = limit_id


class MetricNotEnforceable(Exception):
    """A limit with an enforcement is of a metric that exists with an aggregation that is not additive."""

    def __init__(self, limit_id: str, metric_id: str, aggregation: Aggregation) -> None:
        super().__init__(limit_id, metric_id, aggregation)
        self.limit_id = limit_id
        self.metric_id = metric_id
        self.aggregation = aggregation


# What a limit does with usage: nothing, because it has no amount; it lets the usage pass uncounted, also by the limit
# of a plan; it counts it.
_STANDING = "CASE WHEN {row}.amount IS NULL THEN 0 WHEN {row}.enforcement = 'NONE' THEN 1 ELSE 2 END"
_SAME_STANDING = f"{_STANDING.format(row='t')} = {_STANDING.format(row='excluded')}"
_IS_FOLLOWED = "t.enforced_as_of = t.changed_epoch"
_TABLE = StatedTable(
    "usage_limit",
    ("limit_id",),
    {
        "customer_id": TEXT,
        "plan_id": TEXT,
        "currency": TEXT,
        "metric_id": TEXT,
        "groups": "jsonb",
        "window_kind": TEXT,
        "window_minutes": "integer",
        "natural_key": TEXT,
        "amount": "numeric",
        "enforcement": TEXT,
        "display_name": "text",
    },
    unlocked=frozenset({"display_name"}),
    unrouted=frozenset({"display_name"}),
    followed={
        "enforced_epoch": (
            "%(epoch)s",
            f"CASE WHEN NOT {_SAME_STANDING} THEN excluded.changed_epoch"
            f" WHEN {_IS_FOLLOWED} THEN t.enforced_epoch ELSE t.changed_epoch END",
        ),
        "enforced_time": (
            "%(now)s",
            f"CASE WHEN NOT {_SAME_STANDING} THEN excluded.update_time"
            f" WHEN {_IS_FOLLOWED} THEN t.enforced_time ELSE t.update_time END",
        ),
        "enforced_as_of": ("%(epoch)s", "{changed_epoch}"),
    },
)
# Changed limits of customers, with the key of their unit (`evaluator.balances.Unit.key`), in the rows of {changed}.
# Of the alerts on facts, those on totals of invoices are compared with limits: of a currency, without groups. Those
# of other windows than the billing period are compared with none.
_CHANGED = """
SELECT customer_id, metric_id IS NULL AND groups = '[]', false, false,
       CASE WHEN metric_id IS NULL THEN 'cost/' || currency ELSE 'usage/' || metric_id END
FROM {changed} WHERE customer_id IS NOT NULL AND window_kind IS NULL
"""

# Stores limits, except those of other subjects than before, of subjects that another limit has, of customers that are
# being erased, and enforced ones of metrics that cannot be added up; notes their customers, unless they are quiet.
_PUT = f"""
WITH {_TABLE.input}, {_TABLE.before}, other AS MATERIALIZED (
    SELECT i.position, t.limit_id FROM input i LEFT JOIN before b USING (limit_id) CROSS JOIN LATERAL (
        SELECT limit_id FROM usage_limit
        WHERE organization_id = %(organization_id)s AND natural_key = i.natural_key AND NOT deleted LIMIT 1
    ) AS t
    WHERE b.limit_id IS NULL
), erased AS MATERIALIZED (
    SELECT j.customer_id FROM input i JOIN erasure_job j
        ON j.organization_id = %(organization_id)s AND j.customer_id = i.customer_id
), unenforceable AS MATERIALIZED (
    SELECT i.position, m.aggregation FROM input i CROSS JOIN LATERAL (
        SELECT aggregation FROM metric
        WHERE organization_id = %(organization_id)s AND metric_id = i.metric_id LIMIT 1
    ) AS m
    WHERE i.enforcement <> 'NONE' AND m.aggregation <> ALL (%(additive)s)
), wanted AS MATERIALIZED (
    SELECT i.position, i.natural_key FROM input i LEFT JOIN before b USING (limit_id)
    WHERE i.position NOT IN (SELECT position FROM other)
        AND i.position NOT IN (SELECT position FROM unenforceable)
        AND (b.limit_id IS NULL OR b.natural_key = i.natural_key)
        AND (i.customer_id IS NULL OR i.customer_id NOT IN (SELECT customer_id FROM erased))
), gone AS (
    DELETE FROM usage_limit t USING wanted w
    WHERE t.organization_id = %(organization_id)s AND t.limit_id = %(deleted)s || w.natural_key
    RETURNING t.limit_id
), put AS (
    -- After `gone`: a deleted limit has the natural key of its subject.
    {_TABLE.upsert.format(wanted="(SELECT count(*) FROM gone) >= 0 AND i.position IN (SELECT position FROM wanted)")}
), {quiet_puts.evaluations(_CHANGED.format(changed="put"))}
SELECT i.position, i.customer_id IN (SELECT customer_id FROM erased) IS TRUE AS erased, o.limit_id AS other_id,
       u.aggregation AS unenforceable, p.limit_id IS NOT NULL AS changed,
       {quiet_puts.IS_NOTED} IS TRUE AS noted, {_TABLE.either("p", "b")},
       {_TABLE.before_columns("b")}
FROM input i LEFT JOIN put p USING (limit_id) LEFT JOIN before b USING (limit_id)
LEFT JOIN other o USING (position) LEFT JOIN unenforceable u USING (position)
""".encode()

_ADDITIVE = [aggregation.value for aggregation in Aggregation if aggregation.additive]
PutRefused = LimitFixed | LimitExists | MetricNotEnforceable | CustomerBeingErased


async def put_unlocked(
    connection: DriverConnection, organization_id: int, facts: Sequence[LimitFact], now: datetime, *, change: bool
) -> dict[int, UnlockedPut[StoredLimit]]:
    """Puts those facts that need no lock of the organization, by their index; see `StatedTable.put_unlocked`.

    The limits are distinct.
    """
    columns = [_fact_columns(fact) for fact in facts]
    if on_cluster(connection):
        rows = await put_unlocked_distributed(_TABLE, connection, organization_id, columns, change=change)
    else:
        rows = await _TABLE.put_unlocked(connection, organization_id, columns, now, change=change)
    return {
        position: UnlockedPut(
            limit_of({"organization_id": organization_id, **row}),
            row["superseded"],
            row["noted"],
            None if row["same"] else _before(organization_id, row),
        )
        for position, row in rows.items()
    }


async def put(
    connection: DriverConnection,
    organization_id: int,
    facts: Sequence[LimitFact],
    epoch: int,
    now: datetime,
    quiet: Sequence[QuietPut | None] = (),
) -> list[Put[StoredLimit] | PutRefused]:
    """Stores the facts, unless newer ones are stored, and notes which customers have to be evaluated.

    LimitFixed: the limit exists with another subject. LimitExists: another limit has this subject.
    MetricNotEnforceable: the metric is known, and its usage cannot be added up. The transaction holds the
    organization's lock exclusively and has raised the epoch to this one. The limits are distinct; two new ones with
    the same subject make the statement fail. quiet: the puts that may be quiet, if no other change follows at this
    epoch.
    """
    parameters = {
        "organization_id": organization_id,
        "epoch": epoch,
        "now": now,
        "due_time": now + OWN_TIME,
        "deleted": _DELETED,
        "additive": _ADDITIVE,
    }
    columns = [_fact_columns(fact) for fact in facts]
    if on_cluster(connection):
        rows = await distributed_puts.put(_TABLE, connection, columns, parameters)
    else:
        parameters |= {"facts": encoded(columns), **quiet_puts.parameters(quiet)}
        rows = await fetched(connection, _PUT, parameters)
    return [_result(organization_id, fact, rows[position], epoch) for position, fact in enumerate(facts)]


def _result(organization_id: int, fact: LimitFact, row: dict[str, Any], epoch: int) -> Put[StoredLimit] | PutRefused:
    """The result of a put of a limit."""
    if row["other_id"] is not None:
        return LimitExists(row["other_id"])
    if row["erased"]:
        return CustomerBeingErased(fact.subject.customer_id or "")
    metric_id = fact.subject.metric_id
    if metric_id is not None and row["unenforceable"] is not None and row["before_limit_id"] is None:
        return MetricNotEnforceable(fact.limit_id, metric_id, Aggregation(row["unenforceable"]))
    stored = limit_of({"organization_id": organization_id, **row})
    superseded = is_newer(stored.as_of_time, fact.as_of_time)
    if not superseded and (field := _fixed_field(stored.subject, fact.subject)) is not None:
        return LimitFixed(fact.limit_id, field)
    if metric_id is not None and row["unenforceable"] is not None and not superseded:
        return MetricNotEnforceable(fact.limit_id, metric_id, Aggregation(row["unenforceable"]))
    return Put(
        stored,
        superseded=superseded,
        changed=row["changed"],
        epoch=epoch,
        previous=_before(organization_id, row),
        noted=row["noted"],
    )


def _before(organization_id: int, row: Mapping[str, Any]) -> StoredLimit | None:
    before = _TABLE.before_of(row)
    return None if before is None else limit_of({"organization_id": organization_id, **before})


def _fact_columns(fact: LimitFact) -> dict[str, Any]:
    """What the fact states, by column."""
    fixed = _columns(fact.subject)
    return {
        "limit_id": fact.limit_id,
        **fixed,
        "natural_key": _digest(fixed),
        "amount": fact.amount,
        "enforcement": fact.enforcement.value,
        "display_name": fact.display_name,
        "as_of_time": fact.as_of_time,
    }


# Its row stays under an id that no caller can choose, because routers read what changed.
_DELETE = f"""
WITH before AS MATERIALIZED (
    SELECT * FROM usage_limit WHERE organization_id = %(organization_id)s AND limit_id = %(limit_id)s FOR UPDATE
), gone AS (
    UPDATE usage_limit
    SET limit_id = %(deleted)s || natural_key, amount = NULL, deleted = true, update_time = %(now)s,
        changed_epoch = %(epoch)s, enforced_epoch = %(epoch)s, enforced_time = %(now)s, enforced_as_of = %(epoch)s
    WHERE organization_id = %(organization_id)s AND limit_id = (SELECT limit_id FROM before)
    RETURNING customer_id, plan_id, currency, metric_id, groups, window_kind
), noted AS ({NOTE.format(changed=_CHANGED.format(changed="gone"))})
SELECT b.* FROM before b, gone
""".encode()


async def delete(
    connection: DriverConnection, organization_id: int, limit_id: str, epoch: int, now: datetime
) -> StoredLimit | None:
    """Removes a limit, and notes that its customer has to be evaluated; returns it, None if there is none.

    The transaction holds the organization's lock exclusively and has raised the epoch to this one.
    """
    parameters = {
        "organization_id": organization_id,
        "limit_id": limit_id,
        "epoch": epoch,
        "now": now,
        "due_time": now + OWN_TIME,
        "deleted": _DELETED,
    }
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_DELETE, parameters)
        row = await cursor.fetchone()
    return None if row is None else limit_of(row)


def _columns(subject: LimitSubject) -> dict[str, Any]:
    return {
        "customer_id": subject.customer_id,
        "plan_id": subject.plan_id,
        "currency": subject.currency,
        "metric_id": subject.metric_id,
        "groups": [list(group) for group in subject.groups],
        **windows.columns_of(subject.window),
    }


def natural_key(subject: LimitSubject) -> str:
    """A digest of the subject: the ids, keys and values together can be too long for an index entry."""
    return _digest(_columns(subject))


def _digest(fixed: dict[str, Any]) -> str:
    window = [] if fixed["window_kind"] is None else [fixed["window_kind"], fixed["window_minutes"]]
    return digest_of(json.dumps([*(fixed[name] for name in _FIXED), *window])).hex()


def _fixed_field(stored: LimitSubject, subject: LimitSubject) -> str | None:
    """The first field in which the subjects differ; None if they are equal."""
    if (stored.customer_id, stored.plan_id) != (subject.customer_id, subject.plan_id):
        return "holder"
    if (stored.currency, stored.metric_id) != (subject.currency, subject.metric_id):
        return "access"
    if stored.groups != subject.groups:
        return "groups"
    return "window" if stored.window != subject.window else None
