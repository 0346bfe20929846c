"""Whether an alert that is not evaluated for a customer any more has notified about it before."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from engine.explanation.findings import Explanation
from evaluator.notifications import REACHED_TYPE
from store.notifications.feed import FeedEntry
from store.views.customer_alerts import GaugeSelection


def with_notified(
    explanation: Explanation, entries: Sequence[FeedEntry], selection: GaugeSelection, at: datetime
) -> Explanation:
    """The explanation, with the time at which its alert has notified, if a step has kept its gauges from being read.

    An alert that was disabled afterwards has notified all the same. What counts is the newest notification of each
    gauge in its period around `at`: one that was resolved again does not. entries: notifications of the alert about
    the customer, the newest first.
    """
    if explanation.deciding_step is None or explanation.gauges:
        return explanation
    met = set[str]()
    for entry in entries:
        data = json.loads(entry.body)["data"]
        gauge = data.get("gauge")
        if gauge is None or not _is_selected(gauge, selection) or not _is_around(gauge, at):
            continue
        if data["alert_version"] < explanation.definition.reset_version:
            continue
        name = json.dumps({key: value for key, value in gauge.items() if key != "limit"}, sort_keys=True)
        if name not in met and entry.event_type == REACHED_TYPE:
            return replace(explanation, notified_time=entry.create_time)
        met.add(name)
    return explanation


def _is_selected(gauge: dict[str, Any], selection: GaugeSelection) -> bool:
    group = {(one["key"], one["value"]) for one in gauge.get("group", ())}
    return selection.subscription_id in (None, gauge.get("subscription_id")) and group.issuperset(selection.group)


def _is_around(gauge: dict[str, Any], at: datetime) -> bool:
    """Whether a time is in the period of a gauge; a gauge without a period is of any time."""
    period = gauge.get("period")
    if period is None:
        return True
    start, end = (datetime.fromisoformat(period[name]) for name in ("start_time", "end_time"))
    return start <= at < end
