"""Statements with forms that cannot be distributed, which are executed only where no table is distributed.

By the module below `store` and the constant: what does the work on a cluster. `Forms` needs no entry here.
"""

from collections.abc import Mapping

ONE_SERVER: Mapping[str, str] = {
    # Walks over levels of customers: a statement for each level.
    "accounts.parent_levels._ABOVE": "_read_levels",
    "accounts.parent_levels._PARENTS_BELOW": "_CHILDREN_THAT_ARE_PARENTS",
    "enforcement.changed_customers._CHANGED": "_DIGESTS, and the levels above by themselves",
    "enforcement.held_recounts.WANTED": "parameters_of_below",
    "enforcement.held_recounts._ADD": "parameters_of_below",
    "enforcement.held_recounts._FOUND": "parameters_of_below",
    "enforcement.held_recounts._WOULD": "parameters_of_below",
    "enforcement.meter_recounts.WANTED": "parameters_of_below",
    "enforcement.meter_recounts._COUNT": "parameters_of_below",
    "erasures.customers_above._NOTE_CHANGE": "the levels above, and a lock of each customer",
    # Puts in one statement: step by step.
    "accounts.customer_puts._PUT": "_put_distributed",
    "accounts.quiet_puts._QUIET": "no put is quiet",
    "accounts.subscription_puts._PUT": "_put_distributed",
    "limits.changes._PUT": "store.limits.distributed_puts",
    "rules.facts_before_puts._READ": "_rows",
    # Locks of rows of several customers: a statement for each shard or customer, in order.
    "balances.wallet_timers._CLAIM_DUE": "a claim of each customer",
    "balances.wallets._LOCK": "the customers of one shard",
    "balances.wallets._LOCK_MANY": "_LOCK_MANY_OF_SHARD",
    "balances.wallets._LOCK_MANY_OF_SHARD": "the customers of one shard",
    "balances.wallets._LOCK_WITH_DRAWDOWN": "_LOCK, of those that draw; at a node it names the table of a shard",
    "balances.wallets._LOCK_WITH_OTHERS": "_LOCK; at a node it names the table of a shard",
    "enforcement.held_recounts._LOCK_OPEN": "the customers of one shard",
    "enforcement.reservation_locks._LOCK": "_LOCK_OF_SHARD; at a node it names the table of a shard",
    "enforcement.reservation_locks._LOCK_OF_SHARD": "the customers of one shard",
    "enforcement.reservation_locks._SAME": "the customers of one shard",
    "erasures.customers_below._CLEAR": "a lock of each customer",
    "erasures.wallet_locks._LOCK": "the customers of one shard",
    "usage.voids._LOCK": "_LOCK_ONE",
    "enforcement.rolling_minutes._LEAVING_ONE_BY_ONE": "_LEAVING_OF_SHARD",
    "enforcement.rolling_minutes._LEAVING_OF_SHARD": "the customers of one shard",
    # A bounded search for each of several customers: a statement for each of them.
    "accounts.customer_evaluations._HAVING_USAGE": "_HAS_USAGE",
    "accounts.uses._OF_METRIC": "_OF_METRIC_JOINED",
    "usage.counted_groups._LARGE": "_IS_LARGE",
    # Optimizations that need both kinds of tables at once are left out.
    "alerts.quiet_at_creation.FOUND": "each new alert gets its backfill",
    "usage.quiet_gauges._SETTLE": "the alert is evaluated on each customer",
    "views.alarms._TOTALS": "_TOTALS_APART",
    # Queues that lie by customer on a cluster.
    "deliveries.outbox._TAKE": "store.deliveries.cluster_outbox",
    "deliveries.pending_work._PENDING_WORK": "_WITHOUT_OUTBOX",
    "notifications.feed._WITH_LATER_ENTRIES": "_WITH_LATER_POSITIONS, and organizations_with_pending",
    "notifications.placing._HAS_PENDING": "store.notifications.cluster_placing",
    "notifications.placing._PLACE": "store.notifications.cluster_placing",
    "notifications.placing._SHOWN": "store.notifications.cluster_placing",
    # Parts of statements, and statements of one customer.
    "balances.held_segments._COVERED": "_COVERED_JOINED",
    "monitoring.backlog._ALL": "_DELIVERIES_ALONE and _OTHERS",
    "monitoring.backlog._READ": "_OTHERS",
    "deliveries.bodies._OF_NOTIFICATIONS": "_ON_CLUSTER",
    "notifications.history._REST": "_REST_JOINED",
    "recharges.evaluation._READ_BY_KEY": "a statement for each part",
    "usage.series._READ": "the same: its subquery names the one customer by a parameter",
    "views.alarm_candidates._CANDIDATES_OF_PERIODS": "_CANDIDATES",
    "views.alarm_candidates._PERIOD_ENDS": "_CANDIDATES",
}
