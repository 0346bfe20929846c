"""Windows of the gauges of one alert and customer, which may have thousands of groups, of which a page shows few.

PostgreSQL puts the gauges in order, so that only those of the page are decoded. The order: those in alarm first, then
by subscription and by the values of the group, as bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from evaluator.alerts import AlertRule
from evaluator.gauges import Gauge, Group
from evaluator.periods import Period
from store.alerts.state_json import state_from_json
from store.postgres.database import Connection, driver
from store.views.customer_alerts import GaugeSelection, GaugeTotals
from store.views.customer_gauges import NO_STATE, ShownState, StoredGauge, decoded


class GaugeGone(Exception):
    """The gauge after which a window begins is not a gauge of the alert any more."""


@dataclass(frozen=True)
class GaugeWindow:
    """The first `limit` gauges, or those after a gauge: its id, and whether it was not in alarm then."""

    limit: int
    after: tuple[bool, UUID] | None = None


@dataclass(frozen=True)
class Owner:
    """The customer itself, or one of its subscriptions, with its current period."""

    subscription_id: str | None
    period: Period


# The gauges of one alert in order: those in alarm, then the others; each by subscription and group. `whole` has the
# totals of all of them, also where the window is empty.
_WINDOW = """
WITH owner AS (
    SELECT * FROM unnest(%(subscription_ids)s::text[], %(starts)s::timestamptz[], %(ends)s::timestamptz[])
        AS o (subscription_id, period_start, period_end)
), watched AS MATERIALIZED (
    SELECT g.gauge_id, g.value, g.group_values, g.subscription_id, g.period_start, g.period_end,
        s.alert_version, s.reached, s.sequence, s.change_time, s.change_reason,
        s.alert_version IS NULL OR s.alert_version < %(reset_version)s OR s.reached = '{{}}'::jsonb AS is_other,
        coalesce(g.subscription_id, '') COLLATE "C" AS owner_order,
        ARRAY(
            SELECT (pair ->> 1) COLLATE "C"
            FROM jsonb_array_elements(g.group_values) WITH ORDINALITY AS p (pair, number) ORDER BY number
        ) AS group_order
    FROM gauge g
    JOIN owner o ON o.period_start = g.period_start AND o.period_end = g.period_end
        AND o.subscription_id COLLATE "C" IS NOT DISTINCT FROM g.subscription_id
    LEFT JOIN alert_state s
        ON s.organization_id = g.organization_id AND s.customer_id = g.customer_id AND s.gauge_id = g.gauge_id
        AND s.alert_id = %(alert_id)s
    WHERE g.organization_id = %(organization_id)s AND g.customer_id = %(customer_id)s AND g.measure = %(measure)s
        AND {groups}
), page AS (
    SELECT * FROM watched
    WHERE {after}
    ORDER BY is_other, owner_order, group_order COLLATE "C" LIMIT %(limit)s
)
SELECT whole.*, page.gauge_id, page.value, page.group_values, page.subscription_id, page.period_start,
    page.period_end, page.alert_version, page.reached, page.sequence, page.change_time, page.change_reason
FROM (
    SELECT count(*), count(*) FILTER (WHERE NOT is_other), max(change_time),
        count(*) FILTER (WHERE gauge_id = %(after_id)s)
    FROM watched
) AS whole LEFT JOIN page ON true
ORDER BY page.is_other, page.owner_order, page.group_order COLLATE "C"
"""

_AFTER = """
(is_other, owner_order, group_order COLLATE "C") > (
    SELECT %(after_is_other)s, owner_order, group_order COLLATE "C" FROM watched WHERE gauge_id = %(after_id)s
)
"""


async def read(
    connection: Connection,
    organization_id: int,
    customer_id: str,
    rule: AlertRule,
    owners: Sequence[Owner],
    selection: GaugeSelection,
    window: GaugeWindow,
    reset_version: int,
) -> tuple[list[tuple[StoredGauge, ShownState]], GaugeTotals]:
    """The gauges of a window with their states, in order, and the totals of all selected gauges. Raises GaugeGone.

    rule: of an alert on usage or invoices, whose gauges are stored. reset_version: states that an earlier version of
    the alert wrote count as empty.
    """
    groups, parameters = _conditions(rule, selection.group)
    after_id = None if window.after is None else window.after[1]
    parameters |= {
        "organization_id": organization_id,
        "customer_id": customer_id,
        "alert_id": rule.alert_id,
        "measure": rule.measure.key,
        "subscription_ids": [owner.subscription_id for owner in owners],
        "starts": [owner.period.start for owner in owners],
        "ends": [owner.period.end for owner in owners],
        "reset_version": reset_version,
        "after_id": after_id,
        "after_is_other": None if window.after is None else window.after[0],
        "limit": window.limit,
    }
    statement = _WINDOW.format(groups=groups, after="true" if window.after is None else _AFTER)
    cursor = await (await driver(connection)).execute(statement.encode(), parameters)
    found, totals = list[tuple[StoredGauge, ShownState]](), GaugeTotals(0, in_alarm=False, change_time=None)
    async for number, in_alarm, change_time, has_after, gauge_id, *row in decoded(cursor, organization_id):
        if window.after is not None and not has_after:
            raise GaugeGone
        totals = GaugeTotals(number, in_alarm=in_alarm > 0, change_time=change_time)
        if gauge_id is not None:
            found.append(_decoded(gauge_id, row, customer_id, rule, reset_version))
    return found, totals


def _conditions(rule: AlertRule, selected: Group) -> tuple[str, dict[str, Any]]:
    """The condition that `rule` watches a gauge and that its group is selected, and its parameters."""
    conditions, parameters = [f"jsonb_array_length(g.group_values) = {len(rule.groups)}"], dict[str, Any]()
    wanted = dict(selected)
    if not wanted.keys() <= {selector.key for selector in rule.groups}:
        conditions.append("false")
    for number, selector in enumerate(rule.groups):
        conditions.append(f"g.group_values -> {number} ->> 0 = %(key_{number})s")
        parameters[f"key_{number}"] = selector.key
        for name, value in (("own", selector.value), ("selected", wanted.get(selector.key))):
            if value is not None:
                conditions.append(f"g.group_values -> {number} ->> 1 = %({name}_{number})s")
                parameters[f"{name}_{number}"] = value
    return " AND ".join(conditions), parameters


def _decoded(
    gauge_id: UUID, row: Sequence[Any], customer_id: str, rule: AlertRule, reset_version: int
) -> tuple[StoredGauge, ShownState]:
    value, groups, subscription_id, start, end, version, reached, sequence, change_time, change_reason = row
    group = tuple((key, text) for key, text in groups)
    gauge = Gauge(customer_id, subscription_id, rule.measure, group, Period(start, end))
    state = NO_STATE
    if version is not None:
        own = NO_STATE.state if version < reset_version else state_from_json(reached)
        state = ShownState(own, sequence, change_time, change_reason)
    return StoredGauge(gauge_id, gauge, value), state
