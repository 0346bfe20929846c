"""The evaluation of recharge policies: read with their balances, and written, of many customers in few statements.

The transaction must hold the wallets of the customers.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from psycopg.rows import dict_row

from evaluator.amounts import ZERO
from evaluator.balances import Unit
from evaluator.periods import Period
from evaluator.recharges import BalanceReading, CancelReason, NewRecharge, Policy, RechargeState
from store.postgres.database import DriverConnection, Row
from store.postgres.distributed import Forms, on_cluster
from store.postgres.json_rows import json_rows
from store.recharges.policies import policy_of, standing_values

# Parts of the statements that read policies `p` with their balances `b`, as of the moments of `a`.
_ASKED = """unnest(%(customer_ids)s::text[], %(moments)s::timestamptz[], %(starts)s::timestamptz[],
        %(ends)s::timestamptz[]) AS {name} (customer_id, moment, period_start, period_end)"""
_CHOSEN = "unnest(%(holders)s::text[], %(balance_ids)s::text[]) AS {name} (customer_id, balance_id)"
_BALANCE_OF_POLICY = """balance b ON b.organization_id = p.organization_id AND b.customer_id = p.customer_id
    AND b.balance_id = p.balance_id"""
_POLICY = """recharge_policy p ON p.organization_id = %(organization_id)s
    AND p.customer_id = c.customer_id COLLATE "C" AND p.balance_id = c.balance_id COLLATE "C" """
_REMAINING = """sum(g.amount + g.adjusted - g.drawn) FILTER (
            WHERE g.start_time <= a.moment AND (g.end_time IS NULL OR g.end_time > a.moment)
        )"""
_NEXT_CHANGE = """least(
            min(g.start_time) FILTER (WHERE g.start_time > a.moment),
            min(g.end_time) FILTER (WHERE g.end_time > a.moment)
        )"""
_OF_SEGMENTS = """FROM balance_segment g
    WHERE g.organization_id = p.organization_id AND g.customer_id = p.customer_id AND g.balance_id = p.balance_id
        AND NOT g.removed"""
_OF_RECHARGES = """FROM recharge r
    WHERE num_nonnulls(p.max_amount, p.max_count) > 0
        AND r.organization_id = p.organization_id AND r.customer_id = p.customer_id AND r.balance_id = p.balance_id
        AND r.create_time >= a.period_start AND r.create_time < a.period_end
        AND r.state IN ('PAID', 'REQUESTED') AND r.recharge_id IS DISTINCT FROM p.open_recharge_id"""
_USED = "sum(coalesce(r.paid_amount, r.amount))"
_CHANGES = """NOT coalesce(CASE
    WHEN p.open_recharge_id IS NOT NULL THEN {b}.void_time IS NULL AND p.due_time > {a}.moment
    WHEN p.state = 'DISABLED' THEN p.due_time IS NULL AND p.wait_reason IS NULL
    ELSE {b}.void_time IS NULL AND coalesce({s}.remaining, 0) >= p.below AND p.wait_reason IS NULL
        AND p.due_time IS NOT DISTINCT FROM {s}.next_change AND p.failed_attempts < p.max_attempts
        AND p.last_result IS DISTINCT FROM 'PERMANENT'
END, false)"""
# The policies of balances, with what they see of them. A policy without caps does not read its recharges. The last
# condition leaves out those that `evaluator.recharges.advance` leaves as they are, which are most: to make their
# objects would cost more than to read them.
_READ_BY_KEY = f"""
WITH asked AS (
    SELECT * FROM {_ASKED.format(name="c")}
), chosen AS (
    SELECT customer_id, balance_id
    FROM {_CHOSEN.format(name="t")}
    UNION
    SELECT p.customer_id, p.balance_id
    FROM asked a JOIN recharge_policy p ON p.organization_id = %(organization_id)s
        AND p.customer_id = a.customer_id COLLATE "C" AND p.due_time <= a.moment
    WHERE %(due)s
)
SELECT p.*, b.currency, b.metric_id, b.void_time IS NOT NULL AS voided, s.remaining, s.next_change,
    u.amount AS used_amount, u.number AS used_count
FROM chosen c
JOIN asked a ON a.customer_id = c.customer_id
JOIN {_POLICY}
JOIN {_BALANCE_OF_POLICY}
CROSS JOIN LATERAL (
    SELECT {_REMAINING} AS remaining,
        {_NEXT_CHANGE} AS next_change
    {_OF_SEGMENTS}
) AS s
CROSS JOIN LATERAL (
    SELECT {_USED} AS amount, count(*) AS number {_OF_RECHARGES}
) AS u
WHERE {_CHANGES.format(a="a", b="b", s="s")}
ORDER BY p.customer_id, p.balance_id
"""
# On a cluster: the policies whose timer is due, and then those that are chosen.
_DUE = f"""
SELECT p.customer_id, p.balance_id
FROM {_ASKED.format(name="a")}
JOIN recharge_policy p ON p.customer_id = a.customer_id COLLATE "C" AND p.due_time <= a.moment
WHERE p.organization_id = %(organization_id)s AND p.customer_id = ANY(%(customer_ids)s)
""".encode()
_READ_OF_SHARDS = f"""
SELECT * FROM (
    SELECT p.*, b.currency, b.metric_id, b.void_time, b.void_time IS NOT NULL AS voided, a.moment,
        (SELECT {_REMAINING} {_OF_SEGMENTS}) AS remaining,
        (SELECT {_NEXT_CHANGE} {_OF_SEGMENTS}) AS next_change,
        (SELECT {_USED} {_OF_RECHARGES}) AS used_amount,
        (SELECT count(*) {_OF_RECHARGES}) AS used_count
    FROM {_CHOSEN.format(name="c")}
    JOIN {_ASKED.format(name="a")} ON a.customer_id = c.customer_id
    JOIN {_POLICY}
    JOIN {_BALANCE_OF_POLICY}
    WHERE p.customer_id = ANY(%(holders)s)
) AS p
WHERE {_CHANGES.format(a="p", b="p", s="p")}
ORDER BY customer_id, balance_id
""".encode()


@dataclass(frozen=True, slots=True)
class Asked:
    """A customer whose policies are evaluated. moment: as of when. balance_ids: those that changed."""

    customer_id: str
    moment: datetime
    period: Period
    balance_ids: Collection[str]


async def read(
    connection: DriverConnection, organization_id: int, asked: Mapping[str, Asked], *, due: bool
) -> list[tuple[Policy, BalanceReading]]:
    """The policies of the balances that changed, without those that stay as they are. asked: by customer id.

    due: also those whose timer is due, whatever changed.
    """
    touched = [(one.customer_id, balance_id) for one in asked.values() for balance_id in one.balance_ids]
    if not touched and not due:
        return []
    parameters = {
        "organization_id": organization_id,
        "customer_ids": list(asked),
        "moments": [one.moment for one in asked.values()],
        "starts": [one.period.start for one in asked.values()],
        "ends": [one.period.end for one in asked.values()],
        "holders": [customer_id for customer_id, _ in touched],
        "balance_ids": [balance_id for _, balance_id in touched],
        "due": due,
    }
    statement = _READ_BY_KEY.encode()
    if on_cluster(connection):
        statement, keys = _READ_OF_SHARDS, set(touched)
        if due:
            keys.update(await (await connection.execute(_DUE, parameters)).fetchall())
        parameters["holders"] = [customer_id for customer_id, _ in keys]
        parameters["balance_ids"] = [balance_id for _, balance_id in keys]
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, parameters)
        rows = await cursor.fetchall()
    return [(policy_of(row), _reading(row, asked[row["customer_id"]].period)) for row in rows]


def _reading(row: Mapping[str, Any], period: Period) -> BalanceReading:
    return BalanceReading(
        unit=Unit(row["currency"], row["metric_id"]),
        remaining=_amount(row["remaining"]),
        next_change=row["next_change"],
        voided=row["voided"],
        period=period,
        used_amount=_amount(row["used_amount"]),
        used_count=row["used_count"],
    )


def _amount(value: Decimal | None) -> Decimal:
    return ZERO if value is None else value


@dataclass(frozen=True, slots=True)
class Ended:
    """An open recharge that ends without a report."""

    customer_id: str
    recharge_id: str
    state: RechargeState
    cancel_reason: CancelReason | None


# Ends recharges, and returns what their notifications say.
_END = Forms.naming_shards(
    """
UPDATE recharge r SET state = i.state, cancel_reason = i.cancel_reason, end_time = %(now)s
FROM json_to_recordset(%(rows)s::json) AS i (customer_id text, recharge_id text, state text, cancel_reason text)
WHERE r.organization_id = %(organization_id)s AND r.customer_id = i.customer_id COLLATE "C"
    AND r.recharge_id = i.recharge_id COLLATE "C" {shards}
RETURNING r.customer_id, r.recharge_id, r.balance_id, r.unit, r.sequence, r.attempt, r.amount, r.remaining,
    r.create_time, r.expire_time
""",
    "r.customer_id = ANY(%(customer_ids)s)",
)


@dataclass(frozen=True, slots=True)
class EndedRecharge:
    """A recharge that has ended without a report."""

    customer_id: str
    recharge_id: str
    balance_id: str
    unit: Unit
    sequence: int
    attempt: int
    amount: Decimal
    remaining: Decimal
    create_time: datetime
    expire_time: datetime


async def end(
    connection: DriverConnection, organization_id: int, ended: Sequence[Ended], now: datetime
) -> list[EndedRecharge]:
    """Ends open recharges; returns them."""
    rows = await json_rows(
        (
            {
                "customer_id": one.customer_id,
                "recharge_id": one.recharge_id,
                "state": one.state.value,
                "cancel_reason": None if one.cancel_reason is None else one.cancel_reason.value,
            }
            for one in ended
        ),
        organization_id,
    )
    parameters = {
        "organization_id": organization_id,
        "rows": rows,
        "now": now,
        "customer_ids": [one.customer_id for one in ended],
    }
    cursor = await connection.execute(_END.on(connection), parameters)
    return [_ended(row) for row in await cursor.fetchall()]


def _ended(row: Row) -> EndedRecharge:
    customer_id, recharge_id, balance_id, unit, *others = row
    return EndedRecharge(customer_id, recharge_id, balance_id, Unit.from_key(unit), *others)


# Writes new recharges. The key of one is a digest of its policy and its number: if two transactions request the same
# one, the second fails here.
_REQUEST = """
INSERT INTO recharge (
    organization_id, customer_id, recharge_id, balance_id, policy_id, sequence, state, attempt, unit, amount,
    remaining, create_time, expire_time
)
SELECT %(organization_id)s, i.customer_id, i.recharge_id, i.balance_id, i.policy_id, i.sequence, 'REQUESTED',
    i.attempt, i.unit, i.amount, i.remaining, %(now)s, i.expire_time
FROM json_to_recordset(%(rows)s::json) AS i (
    customer_id text, recharge_id text, balance_id text, policy_id text, sequence bigint, attempt integer, unit text,
    amount numeric, remaining numeric, expire_time timestamptz
)
"""


async def request(
    connection: DriverConnection,
    organization_id: int,
    requested: Sequence[tuple[Policy, Unit, NewRecharge]],
    now: datetime,
) -> None:
    """Stores recharges that are requested."""
    rows = await json_rows(
        (
            {
                "customer_id": policy.customer_id,
                "recharge_id": new.recharge_id,
                "balance_id": policy.balance_id,
                "policy_id": policy.policy_id,
                "sequence": new.sequence,
                "attempt": new.attempt,
                "unit": unit.key,
                "amount": new.amount,
                "remaining": new.remaining,
                "expire_time": new.expire_time,
            }
            for policy, unit, new in requested
        ),
        organization_id,
    )
    await connection.execute(_REQUEST, {"organization_id": organization_id, "rows": rows, "now": now})


# Writes where policies stand.
_WRITE = Forms.naming_shards(
    """
UPDATE recharge_policy p SET
    state = i.state, disabled_reason = i.disabled_reason, disable_time = i.disable_time,
    failed_attempts = i.failed_attempts, last_sequence = i.last_sequence, open_recharge_id = i.open_recharge_id,
    last_result = i.last_result, last_end_time = i.last_end_time, wait_reason = i.wait_reason,
    wait_end_time = i.wait_end_time, due_time = i.due_time
FROM json_to_recordset(%(rows)s::json) AS i (
    customer_id text, balance_id text, state text, disabled_reason text, disable_time timestamptz,
    failed_attempts integer, last_sequence bigint, open_recharge_id text, last_result text, last_end_time timestamptz,
    wait_reason text, wait_end_time timestamptz, due_time timestamptz
)
WHERE p.organization_id = %(organization_id)s AND p.customer_id = i.customer_id COLLATE "C"
    AND p.balance_id = i.balance_id COLLATE "C" {shards}
""",
    "p.customer_id = ANY(%(customer_ids)s)",
)


async def write(connection: DriverConnection, organization_id: int, changed: Sequence[Policy]) -> None:
    """Stores where policies stand."""
    rows = await json_rows(
        (
            {
                "customer_id": policy.customer_id,
                "balance_id": policy.balance_id,
                **standing_values(policy.standing),
            }
            for policy in changed
        ),
        organization_id,
    )
    parameters = {
        "organization_id": organization_id,
        "rows": rows,
        "customer_ids": [policy.customer_id for policy in changed],
    }
    await connection.execute(_WRITE.on(connection), parameters)


# Ends the timers of policies.
_END_TIMERS = """
UPDATE recharge_policy SET due_time = NULL
WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(customer_ids)s) AND due_time IS NOT NULL
"""


async def end_timers(connection: DriverConnection, organization_id: int, customer_ids: Sequence[str]) -> None:
    """Ends the timers of customers that are being erased: nothing of them is evaluated any more."""
    await connection.execute(_END_TIMERS, {"organization_id": organization_id, "customer_ids": list(customer_ids)})
