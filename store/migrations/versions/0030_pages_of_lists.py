"""Indexes that return alerts and endpoints in the order of their lists, for each filter that narrows a list much."""

from alembic import op

revision = "0030"
down_revision = "0029"
oldest_compatible = "0027"

# Built while servers of the version before go on writing; those servers need none of the dropped indexes to be right,
# and list more slowly without them.
_INDEXES = {
    # Replaces alert_by_age: a list of all states merges its three ranges.
    "alert_by_state": "alert (organization_id, state, create_time, alert_id)",
    "alert_wide_by_age": "alert (organization_id, create_time, alert_id) WHERE customer_id IS NULL",
    "alert_of_customer_by_age": (
        "alert (organization_id, customer_id, create_time, alert_id) WHERE customer_id IS NOT NULL"
    ),
    # Replaces alert_of_plan.
    "alert_of_plan_by_age": "alert (organization_id, plan_id, create_time, alert_id) WHERE plan_id IS NOT NULL",
    "alert_of_subscription": (
        "alert (organization_id, subscription_id, create_time, alert_id) WHERE subscription_id IS NOT NULL"
    ),
    "alert_with_released_key": (
        "alert (organization_id, uniqueness_key, create_time, alert_id)"
        " WHERE uniqueness_key IS NOT NULL AND NOT uniqueness_key_held"
    ),
    # Replaces alert_by_label, in which organizations with equal labels share entries. In this one the organization is
    # a part of each entry. An alert without labels has no entry in it.
    "alert_by_own_label": (
        "alert USING gin"
        " (((((('{\"' || organization_id::text) || '\":') || labels::text) || '}')::jsonb) jsonb_path_ops)"
        " WHERE labels <> '{}'::jsonb"
    ),
    # Updates by the notifier change no column of it, so it costs deliveries nothing.
    "endpoint_by_age": "endpoint (organization_id, create_time, endpoint_id) WHERE delete_time IS NULL",
}

_REPLACED = ("alert_by_age", "alert_of_plan", "alert_by_label")


def upgrade() -> None:
    """Adds the indexes, then drops those that they replace."""
    with op.get_context().autocommit_block():
        for name, definition in _INDEXES.items():
            # One that was cut off while it was built is there already, and of no use.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {definition}")
        for name in _REPLACED:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
