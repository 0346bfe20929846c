"""Notifications as messages of the contract, and the filters of their lists and streams."""

import functools
from collections.abc import Sequence

from evaluator.recharge_notifications import NOTIFICATION_TYPES
from generated.tidemark.v1 import condition_pb2, notification_pb2
from generated.tidemark.v1.alert_service_pb2 import ListNotificationsRequest, WatchNotificationsRequest
from server.calls.validation import Violations, to_timestamp
from server.mapping.alerts import read_condition_types
from server.mapping.event_type_numbers import NUMBERS
from server.mapping.event_types import read_event_types
from server.mapping.notification_details import write_detail
from store.notifications.feed import FeedEntry, NotificationFilter

MAX_FILTER_IDS = 100


def read_wanted(
    violations: Violations, request: ListNotificationsRequest | WatchNotificationsRequest
) -> NotificationFilter:
    """Which notifications are asked for."""
    event_types = read_event_types(violations, "event_types", request.event_types, NOTIFICATION_TYPES)
    return NotificationFilter(
        customer_ids=_ids(violations, "customer_ids", request.customer_ids),
        alert_ids=_ids(violations, "alert_ids", request.alert_ids),
        condition_types=read_condition_types(violations, "condition_types", request.condition_types),
        event_types=event_types,
    )


def notification_message(entry: FeedEntry) -> notification_pb2.Notification:
    """A notification, with its body as webhooks carry it, and what the body says as messages."""
    shown = notification_pb2.Notification(
        notification_id=entry.notification_id,
        event_type=NUMBERS[entry.event_type],
        create_time=to_timestamp(entry.create_time),
        alert_id=entry.alert_id,
        condition_type=_condition_type(entry.condition_type),
        customer_id=entry.customer_id,
        sequence=entry.sequence,
        body=entry.body,
    )
    write_detail(entry.body, shown)
    return shown


def _condition_type(name: str) -> condition_pb2.ConditionType.ValueType:
    """The number of a condition; of none for a notification about a recharge."""
    return condition_pb2.ConditionType.Value(f"CONDITION_TYPE_{name.upper() or 'UNSPECIFIED'}")


# For streams: the subscribers of one organization get the same notifications at about the same time. The message is
# shared, so it must not be changed.
shared_notification_message = functools.lru_cache(maxsize=512)(notification_message)


def _ids(violations: Violations, path: str, ids: Sequence[str]) -> tuple[str, ...]:
    if len(ids) > MAX_FILTER_IDS:
        violations.add(path, f"there are {len(ids)}; at most {MAX_FILTER_IDS} are taken")
        return ()
    return tuple(violations.identifier(f"{path}[{index}]", text) for index, text in enumerate(ids))
