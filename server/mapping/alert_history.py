"""The history of an alert, as answers show it."""

from collections.abc import Mapping

from generated.tidemark.v1 import (
    alert_change_pb2,
)
from server.calls.validation import to_timestamp
from server.mapping.alerts import alert_message
from store.alerts.history import AlertChange, ChangeKind

_KINDS: Mapping[ChangeKind, alert_change_pb2.AlertChangeKind.ValueType] = {
    kind: alert_change_pb2.AlertChangeKind.Value(f"ALERT_CHANGE_KIND_{kind}") for kind in ChangeKind
}


def change_message(change: AlertChange) -> alert_change_pb2.AlertChange:
    """One change of a definition."""
    return alert_change_pb2.AlertChange(
        change_number=change.change_number,
        kind=_KINDS[change.kind],
        change_time=to_timestamp(change.change_time),
        key_id=change.author.key_id,
        alert=alert_message(change.definition),
        customer_id=change.customer_id or "",
        subscription_id=change.subscription_id or "",
    )
