"""Quiet puts: facts of customers that change nothing that alerts report, so that no evaluation has to follow.

What a put leads to is found before it takes the lock, from the facts and alerts as of an epoch. Its statement finds
out whether that still stands, and then brings the customer's gauges up to date in place of noting the customer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import orjson

from evaluator.gauges import Gauge
from store.accounts.customer_evaluations import NOTE, having_usage
from store.postgres.database import DriverConnection


@dataclass(frozen=True, slots=True)
class QuietGauge:
    """A gauge on which all alerts are compared with the fact that is put, and its value does not depend on it.

    required_epoch: it is up to date if it was evaluated at or after this epoch. level: the lowest level of all its
    alerts after the put; None if they have none.
    """

    gauge: Gauge
    required_epoch: int
    level: Decimal | None


@dataclass(frozen=True, slots=True)
class QuietPut:
    """A put that needs no evaluation if all these gauges are quiet.

    is_known: whether the customer existed. plan_id: of the customer after the put. epoch: as of which its facts and
    its alerts were read. wide_epoch: the same of alerts that name no customer, and of the limits of plans. unused:
    whether the put may be quiet only if the customer has no usage, see `without_used`.
    """

    customer_id: str
    is_known: bool
    plan_id: str | None
    epoch: int
    wide_epoch: int
    gauges: tuple[QuietGauge, ...]
    unused: bool = False


async def without_used(
    connection: DriverConnection, organization_id: int, puts: Sequence[QuietPut | None]
) -> list[QuietPut | None]:
    """The puts, with None in place of those of customers without usage that have usage meanwhile.

    A statement of its own, because it opens each month of events. The transaction holds the organization's lock
    exclusively.
    """
    unused = [put.customer_id for put in puts if put is not None and put.unused]
    used = await having_usage(connection, organization_id, unused) if unused else []
    return [None if put is not None and put.unused and put.customer_id in used else put for put in puts]


def parameters(puts: Sequence[QuietPut | None]) -> dict[str, Any]:
    """The parameters of `evaluations`, for the puts of one statement.

    None: a put that may not be quiet. Two puts of one customer are not quiet: each was compared without the other.
    """
    by_customer: dict[str, list[QuietPut]] = {}
    for put in puts:
        if put is not None:
            by_customer.setdefault(put.customer_id, []).append(put)
    expected = [of_customer[0] for of_customer in by_customer.values() if len(of_customer) == 1]
    customers = [
        {
            "customer_id": one.customer_id,
            "is_known": one.is_known,
            "plan_id": one.plan_id,
            "epoch": one.epoch,
            "gauges": len(one.gauges),
        }
        for one in expected
    ]
    gauges = [
        {
            "customer_id": one.customer_id,
            "gauge_id": each.gauge.gauge_id,
            "metric_id": each.gauge.measure.metric_id,
            "required_epoch": each.required_epoch,
            "level": None if each.level is None else str(each.level),
        }
        for one in expected
        for each in one.gauges
    ]
    return {
        "expected": orjson.dumps(customers).decode(),
        "expected_gauges": orjson.dumps(gauges).decode(),
        "expected_ids": [one.customer_id for one in expected],
        "known_epoch": min((one.epoch for one in expected), default=0),
        "wide_epoch": min((one.wide_epoch for one in expected), default=0),
    }


# A gauge is quiet if it is up to date, below its level, and no alert has a state on it. The subqueries with LIMIT
# take rows by their keys, whatever statistics PostgreSQL has.
_QUIET = """
expected AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(expected)s::json) AS w (
        customer_id text COLLATE "C", is_known boolean, plan_id text COLLATE "C", epoch bigint, gauges bigint
    )
), quiet_gauge AS MATERIALIZED (
    SELECT w.customer_id, w.level, g.row
    FROM json_to_recordset(%(expected_gauges)s::json) AS w (
        customer_id text COLLATE "C", gauge_id uuid, metric_id text COLLATE "C", required_epoch bigint, level numeric
    ), LATERAL (
        SELECT x.ctid AS row FROM gauge x
        WHERE x.organization_id = %(organization_id)s AND x.customer_id = w.customer_id AND x.gauge_id = w.gauge_id
            AND x.rules_epoch >= w.required_epoch AND x.scale IS NULL
            AND x.value <> 0 AND (w.level IS NULL OR x.value < w.level)
            AND x.period_start <= %(now)s AND x.period_end > %(now)s
        LIMIT 1
    ) AS g
    WHERE (
        SELECT true FROM alert_state s
        WHERE s.organization_id = %(organization_id)s AND s.customer_id = w.customer_id AND s.gauge_id = w.gauge_id
        LIMIT 1
    ) IS NULL AND (
        -- Of raw events from before the metric counted them, a gauge knows nothing.
        w.metric_id IS NULL OR (
            SELECT m.event_name IS NULL FROM metric m
            WHERE m.organization_id = %(organization_id)s AND m.metric_id = w.metric_id
            LIMIT 1
        )
    )
), wide_stand AS MATERIALIZED (
    SELECT %(wide_epoch)s::bigint >= coalesce((
        SELECT changed_epoch FROM alert WHERE organization_id = %(organization_id)s AND customer_id IS NULL
        ORDER BY changed_epoch DESC LIMIT 1
    ), 0) AS stand
), since AS MATERIALIZED (
    SELECT customer_id, changed_epoch FROM alert
    WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(expected_ids)s)
        AND changed_epoch > %(known_epoch)s
    UNION ALL SELECT customer_id, changed_epoch FROM usage_limit
    WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(expected_ids)s)
        AND changed_epoch > %(known_epoch)s
    UNION ALL SELECT customer_id, changed_epoch FROM subscription
    WHERE organization_id = %(organization_id)s AND customer_id = ANY(%(expected_ids)s)
        AND changed_epoch > %(known_epoch)s
), quiet AS MATERIALIZED (
    SELECT w.customer_id
    FROM expected w
    LEFT JOIN LATERAL (
        SELECT changed_epoch FROM customer
        WHERE organization_id = %(organization_id)s AND customer_id = w.customer_id LIMIT 1
    ) AS c ON true
    WHERE (SELECT stand FROM wide_stand)
        -- Another put of the customer that is not quiet is not compared here, but would get no note either.
        AND w.customer_id IN (SELECT customer_id FROM changed GROUP BY customer_id HAVING count(*) = 1)
        AND (c.changed_epoch IS NOT NULL) = w.is_known AND coalesce(c.changed_epoch, 0) <= w.epoch
        AND NOT EXISTS (SELECT FROM since s WHERE s.customer_id = w.customer_id AND s.changed_epoch > w.epoch)
        AND (
            SELECT bool_and(changed_epoch <= %(wide_epoch)s) FROM usage_limit
            WHERE organization_id = %(organization_id)s AND plan_id = w.plan_id
        ) IS NOT FALSE
        AND (
            SELECT true FROM alert_exclusion
            WHERE organization_id = %(organization_id)s AND customer_id = w.customer_id LIMIT 1
        ) IS NULL
        AND (
            SELECT true FROM customer_evaluation
            WHERE organization_id = %(organization_id)s AND customer_id = w.customer_id LIMIT 1
        ) IS NULL
        AND w.gauges = (SELECT count(*) FROM quiet_gauge q WHERE q.customer_id = w.customer_id)
), settled AS (
    UPDATE gauge g SET rules_epoch = %(epoch)s, trip_above = q.level, trip_below = NULL, update_time = %(now)s
    FROM quiet_gauge q
    WHERE q.customer_id IN (SELECT customer_id FROM quiet) AND g.ctid = q.row
)"""
_NOT_QUIET = "SELECT * FROM changed WHERE customer_id NOT IN (SELECT customer_id FROM quiet)"


def evaluations(changed: str) -> str:
    """Tables of a statement: `quiet` has the customers that need no evaluation; the others are noted, in `noted`.

    changed: as in NOTE. The transaction holds the organization's lock exclusively, so no other one moves a gauge or
    registers a customer.
    """
    return f"""
changed AS MATERIALIZED (
    SELECT * FROM ({changed}) AS c (customer_id, facts, usage, subscriptions, limit_unit)
), {_QUIET}, noted AS (
    {NOTE.format(changed=_NOT_QUIET)} RETURNING e.customer_id
)"""


# Whether the customer of a row `i` has a note: of this statement or of an earlier one.
IS_NOTED = """
(
    i.customer_id IN (SELECT customer_id FROM noted) OR (
        SELECT true FROM customer_evaluation n
        WHERE n.organization_id = %(organization_id)s AND n.customer_id = i.customer_id LIMIT 1
    ) IS NOT NULL
)
"""
