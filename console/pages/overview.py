"""The overview: what happens now. Its live part is read again every few seconds, once for all viewers of a key."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from aiohttp import web

from console.access.visit import Visit, see_other
from console.plots.bars import columns
from console.words import times
from console.words.amounts import grouped
from console.words.rendering import link
from generated.tidemark.v1 import activity_pb2, endpoint_pb2
from generated.tidemark.v1.alert_service_pb2 import (
    GetActivityRequest,
    ListAlertsRequest,
    ListNotificationsRequest,
    SummarizeCustomerAlertsRequest,
)
from generated.tidemark.v1.webhook_service_pb2 import ListEndpointsRequest

LIVE = 2.0  # seconds for which viewers share what moves
SLOW = 15.0  # of what costs more to read, and moves less
RECENT = 8  # notifications
_LATE = timedelta(seconds=5)
_INTERVAL = 10  # seconds, of the usage in an activity


@dataclass(frozen=True)
class Rate:
    """How much usage arrives. plot: of the last minutes. wait: of an event for its commit, in words."""

    per_second: str
    last_minutes: str
    wait: str
    plot: Any


async def page(visit: Visit) -> web.StreamResponse:
    """The whole page."""
    if visit.viewer.is_limited:
        return see_other(link("/customer", id=visit.viewer.customer_id))
    return visit.render("overview.html", **await _read(visit))


async def live(visit: Visit) -> web.StreamResponse:
    """The part that moves."""
    return visit.render("overview_live.html", **await _read(visit))


async def _read(visit: Visit) -> dict[str, Any]:
    alerts, webhooks = visit.api.alerts, visit.api.webhooks
    activity, summary, latest, endpoints, any_alert = await asyncio.gather(
        visit.share(alerts.GetActivity, GetActivityRequest(), LIVE),
        visit.share(alerts.SummarizeCustomerAlerts, SummarizeCustomerAlertsRequest(), SLOW),
        visit.share(alerts.ListNotifications, ListNotificationsRequest(page_size=RECENT), LIVE),
        visit.share(webhooks.ListEndpoints, ListEndpointsRequest(page_size=100), LIVE),
        visit.share(alerts.ListAlerts, ListAlertsRequest(page_size=1), SLOW),
    )
    found = None if activity is None else activity.activity
    every = [] if endpoints is None else list(endpoints.endpoints)
    return {
        "activity": found,
        "rate": None if found is None else _rate(found),
        "day": None if found is None else _day(found),
        "late": _late(found, visit.now),
        "summary": summary,
        "latest": [] if latest is None else list(latest.notifications),
        "endpoints": every,
        "failing": [one for one in every if _is_failing(one)],
        "has_alerts": any_alert is not None and bool(any_alert.alerts),
    }


def _is_failing(endpoint: endpoint_pb2.Endpoint) -> bool:
    return endpoint.health.HasField("failing_since_time") or endpoint.disable_reason in (
        endpoint_pb2.DISABLE_REASON_FAILING,
        endpoint_pb2.DISABLE_REASON_GONE,
    )


def _rate(activity: activity_pb2.Activity) -> Rate:
    usage = activity.usage
    latest = [one for one in usage if one.event_count][-6:] if usage else []
    last_minute = usage[-6:]
    events = sum(one.event_count for one in last_minute)
    waited = sum((one.wait.ToTimedelta() * one.event_count for one in latest), timedelta())
    weight = sum(one.event_count for one in latest)
    counts = [
        (f"{times.at(one.start_time):%H:%M:%S} UTC: {one.event_count:,} events", [int(one.event_count)])
        for one in usage
    ]
    per_second = Decimal(events) / max(len(last_minute) * _INTERVAL, 1)
    return Rate(
        grouped(per_second.quantize(Decimal("0.1") if per_second < 100 else Decimal(1))),
        grouped(Decimal(sum(one.event_count for one in usage))),
        times.duration(waited / weight) if weight else "",
        columns(counts, f"Events in each 10 seconds of the last 10 minutes; {events:,} in the last minute"),
    )


def _day(activity: activity_pb2.Activity) -> dict[str, Any]:
    hours = activity.notifications
    reached, resolved = sum(one.reached_count for one in hours), sum(one.resolved_count for one in hours)
    counts = [
        (
            f"from {times.at(one.start_time):%H:%M} UTC: {one.reached_count:,} reached,"
            f" {one.resolved_count:,} resolved, {one.other_count:,} others",
            [int(one.reached_count), int(one.resolved_count), int(one.other_count)],
        )
        for one in hours
    ]
    label = f"Notifications in each of the last 24 hours: {reached:,} reached, {resolved:,} resolved"
    return {
        "reached": reached,
        "resolved": resolved,
        "other": sum(one.other_count for one in hours),
        "last_hour": sum(one.reached_count for one in hours[-1:]),
        "plot": columns(counts, label),
    }


def _late(activity: activity_pb2.Activity | None, now: datetime) -> str:
    """Since when the oldest due delivery waits, in words; empty in the first seconds, in which it is on its way."""
    if activity is None or not activity.HasField("oldest_due_time"):
        return ""
    waits = now - times.at(activity.oldest_due_time)
    return times.duration(waits) if waits >= _LATE else ""
