"""Alerts, their states of customers, notifications and usage: the resources of AlertService."""

from cli.resources.tables import texts
from cli.resources.tables.model import Column, Form, Resource, Verb

_SCOPE_AND_CONDITION = ("scope", "condition")
_ALERT = (
    Column("id", "alert_id", Form.ID),
    Column("name", "display_name"),
    Column("condition", texts.condition, rank=1),
    Column("of", texts.measured, rank=3),
    Column("scope", texts.scope, rank=2),
    Column("thresholds", texts.thresholds),
    Column("state", "state", Form.STATE),
    Column("key", "uniqueness_key", rank=4),
    Column("updated", "update_time", Form.TIME, rank=5),
)
_CHANGE = (
    Column("number", "change_number", Form.NUMBER),
    Column("time", "change_time", Form.TIME),
    Column("change", "kind", Form.STATE),
    Column("by", "key_id", Form.ID),
    Column("customer", texts.customer_and_subscription, rank=2),
    Column("version", "alert.version", Form.NUMBER, rank=1),
    Column("thresholds", lambda change: texts.thresholds(change.alert), rank=3),
)
_EXCLUSION = (
    Column("customer", texts.customer_and_subscription, Form.ID),
    Column("reason", "reason", Form.STATE),
    Column("since", "create_time", Form.TIME),
    Column("by", "key_id", Form.ID, rank=1),
)
_STATE = (
    Column("customer", "customer_id", Form.ID),
    Column("alert", "alert.alert_id", Form.ID),
    Column("name", "alert.display_name", rank=1),
    Column("status", "status", Form.STATE),
    Column("value", texts.values),
    Column("reached", texts.alarms),
    Column("changed", "change_time", Form.TIME, rank=2),
)
_SUMMARY = (
    Column("alert", "alert_id", Form.ID),
    Column("name", "alert_display_name"),
    Column("gauges in alarm", "gauge_count", Form.NUMBER),
    Column("customers", "customer_count", Form.NUMBER),
)
_NOTIFICATION = (
    Column("id", "notification_id", Form.ID),
    Column("time", "create_time", Form.TIME),
    Column("type", "event_type", Form.STATE),
    Column("customer", "customer_id", Form.ID),
    Column("what", texts.crossing),
    Column("alert", "alert_display_name", rank=1),
    Column("alert id", "alert_id", Form.ID, rank=3),
)

_POINT = (
    Column("time", "point_time", Form.TIME),
    Column("value", "value", Form.NUMBER),
)
_ACTIVITY = (
    Column("read", "read_time", Form.TIME),
    Column("waiting deliveries", "waiting_delivery_count", Form.NUMBER),
    Column("oldest due", "oldest_due_time", Form.TIME),
)

_WHOLE_ALERT = "archives the alert {alert_id} for good: it is never evaluated again"

RESOURCES = (
    Resource(
        "alerts",
        "alert",
        "Alerts: what is measured, for which customers, and at which thresholds it notifies.",
        ("alert_id",),
        _ALERT,
        (
            Verb("list", "AlertService/ListAlerts"),
            Verb("get", "AlertService/GetAlert"),
            Verb("update", "AlertService/UpdateAlert", hidden=_SCOPE_AND_CONDITION, done="updated"),
            Verb("enable", "AlertService/EnableAlert", done="enabled"),
            Verb("disable", "AlertService/DisableAlert", done="disabled"),
            Verb("archive", "AlertService/ArchiveAlert", irreversible=_WHOLE_ALERT, done="archived"),
            Verb(
                "release-key",
                "AlertService/ReleaseUniquenessKey",
                irreversible="lets other alerts use the uniqueness key of the archived alert {alert_id}",
                done="released the key of",
            ),
            Verb("changes", "AlertService/ListAlertChanges", columns=_CHANGE),
            Verb("create-batch", "AlertService/BatchCreateAlerts", done="created"),
            Verb("update-batch", "AlertService/BatchUpdateAlerts", done="updated"),
            Verb(
                "archive-batch",
                "AlertService/BatchArchiveAlerts",
                irreversible="archives several alerts for good: they are never evaluated again",
                done="archived",
            ),
        ),
        field="alert",
        get="AlertService/GetAlert",
        commands=(("create", "cli.resources.alert_creation:create"),),
    ),
    Resource(
        "exclusions",
        "exclusion",
        "Customers and subscriptions for which an alert is disabled.",
        (),
        _EXCLUSION,
        (Verb("list", "AlertService/ListAlertExclusions"),),
    ),
    Resource(
        "customer-alerts",
        "state",
        "States of alerts, customer by customer.",
        ("alert_id", "customer_id"),
        _STATE,
        (
            Verb("list", "AlertService/ListCustomerAlerts"),
            Verb("get", "AlertService/GetCustomerAlert"),
            Verb("series", "AlertService/GetCustomerAlertSeries", ("alert_id", "customer_id"), "points", _POINT),
            Verb("summarize", "AlertService/SummarizeCustomerAlerts", columns=_SUMMARY),
            Verb(
                "reset",
                "AlertService/ResetCustomerAlert",
                irreversible="forgets the state of the alert {alert_id} for {customer_id}: thresholds that the value"
                " is at or beyond notify again",
                done="reset",
            ),
        ),
    ),
    Resource(
        "activity",
        "activity",
        "What the organization does at present: usage, notifications, deliveries that wait.",
        (),
        _ACTIVITY,
        (Verb("get", "AlertService/GetActivity"),),
    ),
    Resource(
        "notifications",
        "notification",
        "Notifications: what alerts and recharge policies have reported.",
        ("notification_id",),
        _NOTIFICATION,
        (
            Verb("list", "AlertService/ListNotifications"),
            Verb("get", "AlertService/GetNotification"),
            Verb("watch", "AlertService/WatchNotifications", item="notification"),
        ),
    ),
    Resource(
        "usage",
        "usage",
        "Usage events: send some by hand, or take them back.",
        (),
        (
            Column("accepted", "accepted", Form.NUMBER),
            Column("duplicates", "duplicates", Form.NUMBER),
            Column("rejected", lambda outcome: str(len(outcome.rejected)), Form.NUMBER),
            Column("reached", lambda outcome: ", ".join(one.level for one in outcome.transitions if one.kind == 1)),
        ),
        (
            Verb("send", "AlertService/EvaluateUsageBatch", item="outcome", inside="batch", done="sent"),
            Verb(
                "void",
                "AlertService/VoidUsageEvents",
                item="outcomes",
                irreversible="takes these usage events back: they count nowhere afterwards",
                done="voided",
            ),
        ),
    ),
)
