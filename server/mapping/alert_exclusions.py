"""Exclusions of alerts as messages."""

from generated.tidemark.v1 import alert_exclusion_pb2
from server.calls.validation import to_timestamp
from server.mapping.gauges import DISABLED_REASONS
from store.alerts.exclusions import StoredExclusion


def exclusion_message(one: StoredExclusion) -> alert_exclusion_pb2.AlertExclusion:
    """The message for a customer or subscription for which an alert is disabled."""
    return alert_exclusion_pb2.AlertExclusion(
        customer_id=one.customer_id,
        subscription_id=one.subscription_id or "",
        reason=DISABLED_REASONS[one.reason],
        create_time=to_timestamp(one.create_time),
        key_id=one.key_id,
    )
