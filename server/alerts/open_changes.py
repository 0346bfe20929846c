"""The change of alert definitions by one caller, within the transaction of a group."""

from engine.changes.open_change import OpenChange
from store.alerts.change import Begun, Change
from store.alerts.history import Author


def change_of(group: OpenChange, author: Author) -> Change:
    """The change of one caller, at the epoch and time of its group."""
    begun = Begun(group.epoch, group.now)
    return Change(group.connection, group.organization_id, author, begun, group.max_spend_alerts, group.max_alerts)
