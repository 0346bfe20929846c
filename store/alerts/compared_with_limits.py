"""Alerts with thresholds in percent of a limit: those that a limit of a plan may concern.

Wide alerts are read by an index of their own, and alerts that name a customer by the members of the plan. So the cost
is that of what the limit may concern, whatever the number of alerts of customers that are not on the plan.
"""

from evaluator.balances import Unit
from store.postgres.database import Connection, driver

_IS_COMPARED = """
    a.state = 'ACTIVE' AND a.condition ->> %(unit_name)s::text = %(unit_value)s
    AND (a.plan_id IS NULL OR a.plan_id = %(plan_id)s)
    AND (jsonb_path_exists(a.thresholds, '$[*].percent_of_limit')
         OR jsonb_path_exists(a.condition, '$.overrides[*].thresholds[*].percent_of_limit'))
    AND %(keys)s::text[] = ARRAY(
        SELECT g ->> 'key' COLLATE "C" FROM jsonb_array_elements(a.condition -> 'groups') AS g ORDER BY 1
    )
"""

_MEMBERS = """
    SELECT customer_id FROM customer
    WHERE organization_id = %(organization_id)s AND plan_id = %(plan_id)s
    UNION SELECT customer_id FROM subscription
    WHERE organization_id = %(organization_id)s AND plan_id = %(plan_id)s
"""

# The alerts of a customer are one range of their index, whatever the planner knows about the number of members.
_OF_MEMBERS = f"""
    SELECT a.alert_id FROM m CROSS JOIN LATERAL (
        SELECT a.alert_id FROM alert a
        WHERE a.organization_id = %(organization_id)s AND a.customer_id = m.customer_id AND {_IS_COMPARED}
        OFFSET 0
    ) AS a
"""

_ALL = f"""
WITH m AS MATERIALIZED ({_MEMBERS})
SELECT a.alert_id FROM alert a
WHERE a.organization_id = %(organization_id)s AND a.customer_id IS NULL AND {_IS_COMPARED}
UNION ALL {_OF_MEMBERS}
"""

# An alert that names a customer is taken without a search for the plan: there are few changes since the epoch.
_SINCE = f"""
WITH m AS MATERIALIZED (
    SELECT customer_id FROM customer
    WHERE organization_id = %(organization_id)s AND changed_epoch > %(since)s AND plan_id = %(plan_id)s
    UNION SELECT customer_id FROM subscription
    WHERE organization_id = %(organization_id)s AND changed_epoch > %(since)s AND plan_id = %(plan_id)s
)
SELECT a.alert_id FROM alert a
WHERE a.organization_id = %(organization_id)s AND a.changed_epoch > %(since)s AND {_IS_COMPARED}
UNION {_OF_MEMBERS}
"""


async def of_plan(
    connection: Connection,
    organization_id: int,
    plan_id: str,
    unit: Unit,
    keys: tuple[str, ...],
    *,
    since: int | None = None,
) -> list[str]:
    """The ids of active alerts that may have a gauge that is compared with a limit of the plan.

    keys: the group keys of the limit, sorted. since: only alerts that changed at a later epoch, and those of
    customers that did or of which a subscription did.
    """
    name, value = ("currency", unit.currency) if unit.metric_id is None else ("metric_id", unit.metric_id)
    cursor = await (await driver(connection)).execute(
        (_ALL if since is None else _SINCE).encode(),
        {
            "organization_id": organization_id,
            "plan_id": plan_id,
            "unit_name": name,
            "unit_value": value,
            "keys": list(keys),
            "since": since,
        },
    )
    return [alert_id for (alert_id,) in await cursor.fetchall()]
