"""The change of alert definitions by one caller, within the transaction of a group."""

from engine.changes.open_change import OpenChange
from evaluator.definitions import AlertDefinition
from server.mapping.alerts import alert_message
from server.mapping.audited_resources import Describing
from store.alerts.change import Begun, Change
from store.alerts.history import Author


def change_of(group: OpenChange, author: Author) -> Change:
    """The change of the current call, at the epoch and time of its group.

    Each alert that it changes gets an entry of the audit log.
    """
    begun, describe = Begun(group.epoch, group.now), Describing(alert_message)

    def record(before: AlertDefinition | None, after: AlertDefinition) -> None:
        group.trail.append(describe(before, after))

    return Change(
        group.connection,
        group.organization_id,
        author,
        begun,
        group.max_spend_alerts,
        record,
        max_alerts=group.max_alerts,
    )
