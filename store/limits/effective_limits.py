"""Effective limits: the limits that apply to gauges, of customers and of plans."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from evaluator.balances import Unit
from evaluator.enforced_limits import Enforcement, Since
from evaluator.gauges import Gauge
from evaluator.limits import NO_LIMITS, LimitChange, Limits, limit_of
from store.limits.windows import window_of
from store.postgres.database import DriverConnection, Row

# The columns of a limit, as `_limit` reads them. In JSON, a time has one form whatever the DateStyle of the node is.
_FIELDS = (
    "l.currency, l.metric_id, l.groups, l.amount::text, l.changed_epoch, l.limit_id, l.enforcement, l.window_kind,"
    " l.window_minutes, CASE WHEN l.enforced_as_of = l.changed_epoch THEN l.enforced_epoch ELSE l.changed_epoch END,"
    " json_build_array(CASE WHEN l.enforced_as_of = l.changed_epoch THEN l.enforced_time ELSE l.update_time END)->>0"
)

# The limits of a customer itself, as a column of a statement about `customer`; `read_column` reads it.
LIMITS_COLUMN = f"""
(SELECT jsonb_agg(jsonb_build_array({_FIELDS})) FROM usage_limit l
 WHERE l.organization_id = customer.organization_id AND l.customer_id = customer.customer_id)
"""

# The limits of all plans.
_OF_ALL_PLANS = f"""
SELECT l.plan_id, {_FIELDS} FROM usage_limit l WHERE l.organization_id = %(organization_id)s AND l.plan_id IS NOT NULL
"""

# The limits of some plans.
_OF_PLANS = f"""
SELECT l.plan_id, {_FIELDS} FROM usage_limit l
WHERE l.organization_id = %(organization_id)s AND l.plan_id = ANY(%(plan_ids)s)
"""

# The limits of one customer itself.
_OF_CUSTOMER = f"""
SELECT l.customer_id, {_FIELDS} FROM usage_limit l
WHERE l.organization_id = %(organization_id)s AND l.customer_id = %(customer_id)s
"""


def read_column(stored: Sequence[Sequence[Any]] | None) -> Limits:
    """The limits in a LIMITS_COLUMN."""
    return NO_LIMITS if stored is None else Limits(map(_limit, stored))


async def of_plans(
    connection: DriverConnection, organization_id: int, plan_ids: Collection[str] | None = None
) -> dict[str, Limits]:
    """The limits of these plans, or of all plans, by plan id. Plans that never had any are left out."""
    if plan_ids is None:
        found = await _by_subject(connection, _OF_ALL_PLANS, organization_id=organization_id)
    else:
        found = await _by_subject(connection, _OF_PLANS, organization_id=organization_id, plan_ids=sorted(plan_ids))
    return {plan_id: Limits(changes) for plan_id, changes in found.items()}


async def finder(
    connection: DriverConnection, organization_id: int, customer_id: str, plan_ids: Mapping[str | None, str | None]
) -> Callable[[Gauge], Decimal | None]:
    """A function that returns the effective limit of a gauge of the customer.

    plan_ids: the plans of its subscriptions by subscription id, and its own plan under None.
    """
    own = await _by_subject(connection, _OF_CUSTOMER, organization_id=organization_id, customer_id=customer_id)
    names = {plan_id for plan_id in plan_ids.values() if plan_id is not None}
    by_plan = await of_plans(connection, organization_id, names)
    limits = Limits(own.get(customer_id, ()))

    def find(gauge: Gauge) -> Decimal | None:
        plan_id = plan_ids.get(gauge.subscription_id)
        return limit_of((limits, by_plan.get(plan_id or "", NO_LIMITS)), gauge.measure.unit, gauge.group)

    return find


async def _by_subject(connection: DriverConnection, query: str, **parameters: Any) -> Mapping[str, list[LimitChange]]:
    cursor = await connection.execute(query.encode(), parameters)
    rows: Iterable[Row] = await cursor.fetchall()
    found: dict[str, list[LimitChange]] = {}
    for subject, *fields in rows:
        found.setdefault(subject, []).append(_limit(fields))
    return found


def _limit(fields: Sequence[Any]) -> LimitChange:
    currency, metric_id, groups, amount, changed_epoch, limit_id, enforcement, window_kind, minutes = fields[:9]
    since_epoch, since_time = fields[9:]
    return LimitChange(
        Unit(currency, metric_id),
        tuple((key, value) for key, value in groups),
        None if amount is None else Decimal(amount),
        changed_epoch,
        window_of(window_kind, minutes),
        Enforcement(enforcement),
        limit_id,
        Since(since_epoch, datetime.fromisoformat(since_time)),
    )
