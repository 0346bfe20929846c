"""An explanation as lines for people: the answer first, then what it follows from."""

from collections.abc import Iterator

import click

from cli.client.times import to_datetime
from cli.console import bad, good, named, quiet, warn
from generated.tidemark.v1 import explanation_pb2 as messages
from generated.tidemark.v1.delivery_pb2 import DELIVERY_STATUS_DELIVERED, DELIVERY_STATUS_PENDING

_PASSED = messages.EXPLANATION_REASON_PASSED
_FIRED = messages.EXPLANATION_REASON_NOTIFIED


def lines_of(explanation: messages.CustomerAlertExplanation) -> Iterator[str]:
    """The lines of an explanation."""
    alert = explanation.alert
    has_fired = explanation.reason == _FIRED
    yield f"{good('notified') if has_fired else warn('not notified')}  {explanation.summary}"
    name = f"{alert.display_name} ({named(alert.alert_id)})"
    yield f"{quiet('alert')} {name}  {quiet('customer')} {explanation.customer_id}"
    yield from _section("checks")
    for step in explanation.steps:
        mark = good("ok") if step.reason == _PASSED else bad("no")
        yield f"  {mark}  {step.summary}"
    for gauge in explanation.gauges:
        yield from _gauge(gauge)
    if explanation.gauges_truncated:
        yield quiet("  … there are more gauges: select some with --subscription and --group")
    if explanation.group_limit:
        yield quiet(f"  the alert has met {explanation.group_count:,} of at most {explanation.group_limit:,} groups")
    if explanation.HasField("counted"):
        yield from _counted(explanation.counted)
    yield from _notifications(explanation)
    if explanation.endpoints:
        yield from _section("endpoints")
        for endpoint in explanation.endpoints:
            yield f"  {_endpoint_mark(endpoint)}  {endpoint.summary}{_name(endpoint.display_name)}"


def _gauge(gauge: messages.GaugeExplanation) -> Iterator[str]:
    yield from _section("gauge")
    yield f"  {gauge.summary}"
    if gauge.HasField("limit"):
        source = f"plan {gauge.limit.plan_id}" if gauge.limit.plan_id else "customer"
        yield f"  {quiet('limit')} {gauge.limit.amount} of the {source}"
    yield from _holds(gauge)
    for one in gauge.thresholds:
        distance = f", {one.distance} away" if one.distance else ""
        level = f" {quiet(f'level {one.level}{distance}')}" if one.level else ""
        resolves = f" {quiet(f'resolves at {one.resolve_level}')}" if one.resolve_level else ""
        reported = f" {quiet(one.notification_id)}" if one.notification_id else ""
        mark = warn("!") if one.state.in_alarm else quiet("-")
        yield f"  {mark} {one.summary}{level}{resolves}{reported}"


def _holds(gauge: messages.GaugeExplanation) -> Iterator[str]:
    for one in gauge.holds:
        expires = f"{to_datetime(one.expire_time):%Y-%m-%d %H:%M:%S} UTC"
        yield f"  {quiet('reservation')} {named(one.reservation_id)} holds {one.amount} {quiet(f'expires {expires}')}"
    if (others := gauge.hold_count - len(gauge.holds)) > 0 and gauge.holds:
        yield quiet(f"  … and {others:,} more: tidemark reservations list {gauge.gauge.customer_id}")


def _counted(counted: messages.CountedEvents) -> Iterator[str]:
    yield from _section("usage events of the period")
    at_least = "" if counted.is_complete else "at least "
    yield f"  counted {at_least}{counted.event_count:,} of {counted.examined_count:,} that were read"
    if counted.HasField("last_event_time"):
        arrived = f"{to_datetime(counted.last_ingest_time):%Y-%m-%d %H:%M:%S}"
        yield (
            f"  last {named(counted.last_event_id)} of {to_datetime(counted.last_event_time):%Y-%m-%d %H:%M:%S} UTC"
            f" {quiet(f'arrived {arrived}')}"
        )
    others = ", ".join(counted.other_units) or "no cost"
    for number, of_one, of_more in (
        (counted.late_count, "arrived after the period had ended", "arrived after the period had ended"),
        (counted.voided_count, "was voided", "were voided"),
        (counted.filtered_count, *_both("does", "do", "not pass the filters or group values of the alert")),
        (counted.ungrouped_count, *_both("lacks", "lack", "a property of its groups")),
        (counted.other_unit_count, *_both("has", "have", f"another metric or currency: {others}")),
    ):
        if number:
            yield f"  {number:,} {of_one if number == 1 else of_more}"


def _both(of_one: str, of_more: str, rest: str) -> tuple[str, str]:
    """What one event does, and what several do."""
    return f"{of_one} {rest}", f"{of_more} {rest}"


def _notifications(explanation: messages.CustomerAlertExplanation) -> Iterator[str]:
    yield from _section("notifications")
    if not explanation.notifications:
        yield quiet("  none that is still stored")
    for one in explanation.notifications:
        yield f"  {named(one.notification.notification_id)} {one.summary}"
        cause = "event or reservation" if one.notification.evaluation.gauge.counts_held else "event"
        for transition in one.notification.evaluation.transitions:
            event = f" with the {cause} {transition.event_id}" if transition.event_id else ""
            yield quiet(
                f"      level {transition.level}: value {transition.previous_value} → {transition.value}{event}"
            )
        for delivery in one.deliveries:
            status = delivery.delivery.status
            mark = {DELIVERY_STATUS_DELIVERED: good("ok"), DELIVERY_STATUS_PENDING: warn("..")}.get(status, bad("no"))
            yield f"      {mark}  {delivery.summary}"


def _endpoint_mark(endpoint: messages.EndpointExplanation) -> str:
    if endpoint.outcome != messages.ENDPOINT_OUTCOME_SENT:
        return quiet("no")
    return warn("! ") if endpoint.HasField("failing_since_time") else good("ok")


def _section(title: str) -> Iterator[str]:
    yield ""
    yield click.style(title, bold=True)


def _name(display_name: str) -> str:
    return f" {quiet(display_name)}" if display_name else ""
