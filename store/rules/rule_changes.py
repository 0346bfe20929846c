"""What changed of the rules and facts of an organization since an epoch, by name: a router reads only that again."""

from dataclasses import dataclass, field

from runtime.turns import Slices
from store.postgres.database import DriverConnection

NAMES_AT_ONCE = 500  # names that are read without a pause

# One statement, because most changes are of one kind. `changed_epoch` of an exclusion may be that of the router
# itself: it is stored without a new epoch. A change of a subscription may be its deletion.
_SINCE = """
SELECT * FROM (
    SELECT 'ALERT' AS kind, customer_id AS name, alert_id AS of_name FROM alert
    WHERE organization_id = %(organization_id)s AND customer_id IS NOT NULL AND changed_epoch > %(epoch)s
    UNION ALL
    SELECT 'WIDE', alert_id, '' FROM alert
    WHERE organization_id = %(organization_id)s AND customer_id IS NULL AND changed_epoch > %(epoch)s
    UNION ALL
    SELECT 'CUSTOMER', customer_id, '' FROM customer
    WHERE organization_id = %(organization_id)s AND changed_epoch > %(epoch)s
    UNION ALL
    SELECT 'CUSTOMER', customer_id, '' FROM alert_exclusion
    WHERE organization_id = %(organization_id)s AND changed_epoch >= %(epoch)s
    UNION ALL
    SELECT CASE WHEN customer_id IS NULL THEN 'PLAN' ELSE 'CUSTOMER' END, coalesce(customer_id, plan_id), ''
    FROM usage_limit WHERE organization_id = %(organization_id)s AND changed_epoch > %(epoch)s
    UNION ALL
    SELECT 'SUBSCRIPTION', customer_id, subscription_id FROM subscription
    WHERE organization_id = %(organization_id)s AND changed_epoch > %(epoch)s
    UNION ALL
    SELECT 'METRIC', metric_id, '' FROM metric
    WHERE organization_id = %(organization_id)s AND changed_epoch > %(epoch)s
    UNION ALL
    SELECT CASE kind WHEN 'METRIC' THEN 'DELETED_METRIC' ELSE kind END,
           CASE kind WHEN 'METRIC' THEN fact_id ELSE customer_id END, fact_id
    FROM fact_deletion WHERE organization_id = %(organization_id)s AND changed_epoch > %(epoch)s
    UNION ALL
    SELECT 'DELETION', '', '' FROM organization
    WHERE organization_id = %(organization_id)s AND deletion_epoch > %(epoch)s
) AS changed
LIMIT %(limit)s
"""


@dataclass
class RuleChanges:
    """The names of what changed.

    alerts: of those that name a customer, by customer id. wide_alerts: the ids of the others. customers: whose facts,
    limits or exclusions changed. subscriptions: ids by customer id. plans: whose limits changed. metrics: ids.
    deleted_metrics: ids of those whose deletion began or ended; they may have been created again since. deleted: rows
    of rules or facts were deleted, which have no names any more.
    """

    alerts: dict[str, set[str]] = field(default_factory=dict)
    wide_alerts: set[str] = field(default_factory=set)
    customers: set[str] = field(default_factory=set)
    subscriptions: dict[str, set[str]] = field(default_factory=dict)
    plans: set[str] = field(default_factory=set)
    metrics: set[str] = field(default_factory=set)
    deleted_metrics: set[str] = field(default_factory=set)
    deleted: bool = False

    def add(self, kind: str, name: str, of_name: str) -> None:
        """Adds a row of _SINCE."""
        match kind:
            case "ALERT":
                self.alerts.setdefault(name, set()).add(of_name)
            case "WIDE":
                self.wide_alerts.add(name)
            case "CUSTOMER":
                self.customers.add(name)
            case "SUBSCRIPTION":
                self.subscriptions.setdefault(name, set()).add(of_name)
            case "PLAN":
                self.plans.add(name)
            case "METRIC":
                self.metrics.add(name)
            case "DELETED_METRIC":
                self.deleted_metrics.add(name)
            case "DELETION":
                self.deleted = True


async def changes_since(
    connection: DriverConnection, organization_id: int, epoch: int, limit: int
) -> RuleChanges | None:
    """What changed at a later epoch; None if that is more than `limit` names.

    The transaction holds the organization's lock.
    """
    parameters = {"organization_id": organization_id, "epoch": epoch, "limit": limit + 1}
    cursor = await connection.execute(_SINCE.encode(), parameters)
    found, number, slices = RuleChanges(), 0, Slices(organization_id)
    slices.begin_at_once()
    while rows := await cursor.fetchmany(NAMES_AT_ONCE):
        number += len(rows)
        for row in rows:
            found.add(*row)
        await slices.pause()
    return None if number > limit else found
