"""Alerts: the list, one alert with its state and history, and what can be done with it."""

import asyncio
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from aiohttp import web

from console.access.api import ApiError
from console.access.visit import Visit, see_other
from console.pages.gauges import Shown, shown_alert
from console.words import alerts as alert_words
from console.words import amounts
from console.words.names import words_of
from console.words.rendering import link
from generated.tidemark.v1 import alert_change_pb2, alert_pb2
from generated.tidemark.v1.alert_service_pb2 import (
    ArchiveAlertRequest,
    DisableAlertRequest,
    EnableAlertRequest,
    GetAlertRequest,
    ListAlertChangesRequest,
    ListAlertExclusionsRequest,
    ListAlertsRequest,
    ListCustomerAlertsRequest,
    ListNotificationsRequest,
    SummarizeCustomerAlertsRequest,
)
from generated.tidemark.v1.audit_entry_pb2 import AUDIT_RESOURCE_TYPE_ALERT
from generated.tidemark.v1.audit_service_pb2 import ListAuditEntriesRequest
from generated.tidemark.v1.condition_pb2 import ConditionType
from generated.tidemark.v1.customer_alert_pb2 import CUSTOMER_ALERT_STATUS_IN_ALARM, CUSTOMER_ALERT_STATUS_OK
from generated.tidemark.v1.list_order_pb2 import LIST_ORDER_NEWEST_FIRST

PAGE = 25  # alerts
IN_ALARM = 20  # gauges of one page
EXAMINED = 50  # customers of which the nearest are shown
NEAREST = 15
CHANGES = 20
SLOW = 15.0  # seconds for which viewers share a summary
_TYPES = [number for number in ConditionType.values() if number]

DONE = {
    "created": "The alert is created. What was counted before is evaluated in the background.",
    "updated": "The alert is changed.",
    "enabled": "The alert is evaluated again.",
    "disabled": "The alert is not evaluated until it is enabled.",
    "archived": "The alert is archived: it is not evaluated any more.",
}


async def listed(visit: Visit) -> web.StreamResponse:
    """A page of alerts, the newest first."""
    filters = {name: visit.query(name) for name in ("state", "type", "q", "customer", "label")}
    request = ListAlertsRequest(
        page_size=PAGE,
        page_token=visit.query("page"),
        display_name_prefix=filters["q"],
        customer_id=filters["customer"],
        order=LIST_ORDER_NEWEST_FIRST,
        states=_states(filters["state"]),
        include_total_size=not visit.query("page"),
    )
    request.condition_types.extend(one for one in _TYPES if str(one) == filters["type"])
    key, _, value = filters["label"].partition("=")
    if key:
        request.labels[key.strip()] = value.strip()
    answer = await visit.calls(visit.api.alerts.ListAlerts, request)
    summary = None
    if answer.alerts:
        ids = [one.alert_id for one in answer.alerts]
        summary = await visit.share(
            visit.api.alerts.SummarizeCustomerAlerts, SummarizeCustomerAlertsRequest(alert_ids=ids), SLOW
        )
    return visit.render(
        "alerts.html",
        alerts=answer.alerts,
        total=answer.total_size if answer.HasField("total_size") else None,
        next_token=answer.next_page_token,
        filters=filters,
        is_filtered=any(value for name, value in filters.items() if name != "state" or value != ""),
        types=[(number, ConditionType.Name(number)) for number in _TYPES],
        counts={} if summary is None else {one.alert_id: one for one in summary.alerts},
    )


def _states(text: str) -> "list[alert_pb2.AlertState.ValueType]":
    """The states of the filter. Without one: all but archived ones."""
    if text == "all":
        return []
    if chosen := [one for one in alert_pb2.AlertState.values() if one and str(one) == text]:
        return chosen
    return [alert_pb2.ALERT_STATE_ACTIVE, alert_pb2.ALERT_STATE_DISABLED]


async def one(visit: Visit) -> web.StreamResponse:
    """One alert."""
    alert_id = visit.request.match_info["alert_id"]
    calls, alerts = visit.calls, visit.api.alerts
    alert = (await calls(alerts.GetAlert, GetAlertRequest(alert_id=alert_id))).alert
    in_alarm, others, changes, exclusions, actors, notifications, summary = await asyncio.gather(
        calls(
            alerts.ListCustomerAlerts,
            ListCustomerAlertsRequest(
                alert_ids=[alert_id],
                statuses=[CUSTOMER_ALERT_STATUS_IN_ALARM],
                page_size=IN_ALARM,
                page_token=visit.query("alarms"),
            ),
        ),
        calls(
            alerts.ListCustomerAlerts,
            ListCustomerAlertsRequest(
                alert_ids=[alert_id],
                statuses=[CUSTOMER_ALERT_STATUS_OK],
                page_size=EXAMINED,
                page_token=visit.query("others"),
            ),
        ),
        calls(alerts.ListAlertChanges, ListAlertChangesRequest(alert_id=alert_id, page_size=CHANGES)),
        calls(alerts.ListAlertExclusions, ListAlertExclusionsRequest(alert_id=alert_id, page_size=CHANGES)),
        _actors(visit, alert_id),
        calls(alerts.ListNotifications, ListNotificationsRequest(alert_ids=[alert_id], page_size=10)),
        visit.share(alerts.SummarizeCustomerAlerts, SummarizeCustomerAlertsRequest(alert_ids=[alert_id]), SLOW),
    )
    unit = alert_words.unit_of(alert)
    return visit.render(
        "alert.html",
        alert=alert,
        done=DONE,
        thresholds=[
            (alert_words.threshold_words(one, unit), alert_words.threshold_details(one, unit), one.code)
            for one in alert.thresholds
        ],
        case=words_of(alert_words.condition_of(alert)[0]),
        filters=list(alert_words.filter_words(*alert_words.condition_of(alert))) if alert.thresholds else [],
        in_alarm=[_of_gauge(visit, one) for one in in_alarm.customer_alerts],
        more_in_alarm=in_alarm.next_page_token,
        total=next(iter(summary.alerts), None) if summary is not None else None,
        nearest=_nearest(visit, others.customer_alerts),
        examined=len(others.customer_alerts),
        more_others=others.next_page_token,
        changes=_changes(changes.changes, actors),
        exclusions=exclusions.exclusions,
        notifications=notifications.notifications,
    )


def _of_gauge(visit: Visit, one: Any) -> tuple[str, Shown]:
    return one.customer_id, shown_alert(one.alert, one.gauges[0], None, (), visit.now, "UTC")


def _nearest(visit: Visit, states: Iterable[Any]) -> list[tuple[str, Shown]]:
    """The gauges that are nearest to their next level, of these customers."""
    found = []
    for one in states:
        for gauge in one.gauges:
            level, distance = amounts.decimal(gauge.next_level), amounts.decimal(gauge.next_level_distance)
            if level is None or distance is None:
                continue
            whole = abs(level) or abs(amounts.decimal(gauge.gauge.value) or Decimal(0)) or Decimal(1)
            found.append((distance / whole, one, gauge))
    found.sort(key=lambda item: item[0])
    return [
        (one.customer_id, shown_alert(one.alert, gauge, None, (), visit.now, "UTC"))
        for _, one, gauge in found[:NEAREST]
    ]


async def _actors(visit: Visit, alert_id: str) -> dict[str, str]:
    """The names of the keys that changed the alert, from the audit log, which only an admin may read."""
    if not visit.viewer.may_administrate:
        return {}
    request = ListAuditEntriesRequest(
        resource_types=[AUDIT_RESOURCE_TYPE_ALERT], resource_id=alert_id, page_size=CHANGES
    )
    try:
        answer = await visit.optional(visit.calls(visit.api.audit.ListAuditEntries, request))
    except ApiError:
        return {}
    entries = [] if answer is None else answer.entries
    return {one.actor.actor_id: one.actor.display_name for one in entries if one.actor.display_name}


def _changes(
    changes: Sequence[alert_change_pb2.AlertChange], actors: dict[str, str]
) -> list[tuple[alert_change_pb2.AlertChange, str, list[str]]]:
    """The changes with who made them, and what each changed."""
    found = []
    for index, change in enumerate(changes):
        before = changes[index + 1].alert if index + 1 < len(changes) else None
        who = actors.get(change.key_id) or change.key_id or "no key"
        found.append((change, who, [] if before is None else differences(before, change.alert)))
    return found


def differences(before: alert_pb2.Alert, after: alert_pb2.Alert) -> list[str]:
    """What changed in a definition, in words."""
    found = []
    if before.display_name != after.display_name:
        found.append(f"name: {before.display_name} → {after.display_name}")
    if before.thresholds != after.thresholds:
        old, new = alert_words.levels(before), alert_words.levels(after)
        found.append(f"thresholds: {old} → {new}" if old != new else "details of thresholds")
    if before.labels != after.labels:
        found.append("labels")
    case, condition = alert_words.condition_of(after)
    if condition is not None and condition != getattr(before, case):
        names = [
            field.name
            for field in condition.DESCRIPTOR.fields
            if getattr(condition, field.name) != getattr(getattr(before, case), field.name)
        ]
        found += [words_of(name).lower() for name in names]
    return found


async def enable(visit: Visit) -> web.StreamResponse:
    """Evaluates the alert again."""
    return await _done(visit, visit.api.alerts.EnableAlert, EnableAlertRequest, "enabled")


async def disable(visit: Visit) -> web.StreamResponse:
    """Stops its evaluation."""
    return await _done(visit, visit.api.alerts.DisableAlert, DisableAlertRequest, "disabled")


async def archive(visit: Visit) -> web.StreamResponse:
    """Ends it permanently."""
    alert_id = visit.request.match_info["alert_id"]
    request = ArchiveAlertRequest(
        alert_id=alert_id, etag=visit.sent("etag"), release_uniqueness_key=visit.sent("release") == "1"
    )
    await visit.calls(visit.api.alerts.ArchiveAlert, request)
    return see_other(link(f"/alerts/{alert_id}", done="archived"))


async def _done(visit: Visit, method: Any, request: Any, code: str) -> web.StreamResponse:
    alert_id = visit.request.match_info["alert_id"]
    await visit.calls(method, request(alert_id=alert_id, etag=visit.sent("etag")))
    return see_other(link(f"/alerts/{alert_id}", done=code))
