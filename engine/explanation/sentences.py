"""The sentences of an explanation, for people."""

from collections.abc import Sequence

from engine.explanation.coverage import counted, shown_time
from engine.explanation.deliveries import EndpointOutcome, SentNotification
from engine.explanation.findings import ExplainedGauge, Explanation, Next, Reason
from evaluator.amounts import format_decimal
from evaluator.gauges import Gauge
from evaluator.thresholds import Threshold, TransitionKind
from store.deliveries.deliveries import Attempt, Delivery
from store.endpoints.rows import Endpoint
from webhooks.deliveries import DeliveryStatus


def of_explanation(explanation: Explanation) -> str:
    """Why the alert has notified about the customer, or has not."""
    if (step := explanation.deciding_step) is not None:
        if explanation.notified_time is not None:
            return (
                f"The alert has notified on {shown_time(explanation.notified_time)}, and does not now. {step.summary}"
            )
        return step.summary
    gauge = explanation.deciding_gauge
    if gauge is None:
        return "The customer has no gauge of this alert in the period."
    return of_gauge(gauge)


def of_gauge(explained: ExplainedGauge) -> str:
    """Why the alert has notified about a gauge, or has not."""
    text = _sentence(explained) + _of_held(explained)
    return text[0].upper() + text[1:]


def _of_held(explained: ExplainedGauge) -> str:
    """What open reservations hold of a gauge, as a sentence more; empty where that is nothing."""
    held = explained.held
    if held is None or not held.number:
        return ""
    amount, number = format_decimal(held.amount), counted(held.number, "open reservation")
    if explained.gauge.measure.counts_held:
        return f" Of the value, {amount} is held by {number}."
    return f" Beside that, {amount} is held by {number}: the alert does not count it (counts_held)."


def _sentence(explained: ExplainedGauge) -> str:
    name = gauge_name(explained.gauge)
    value = "not known yet" if explained.value is None else format_decimal(explained.value)
    counts_held = explained.gauge.measure.counts_held
    following = "" if explained.next is None else f" {of_next(explained.next, counts_held=counts_held)}"
    match explained.reason:
        case Reason.NOTIFIED:
            text = f"The alert has notified: {name} is {value}, and {_reached(explained)}."
            return f"{text} It notifies again after that was resolved, or in the next period.{following}"
        case Reason.NOT_REQUESTED:
            return f"{name} is {value}, and {_reached(explained)}; its notify_on does not list REACHED.{following}"
        case Reason.REACHED_SILENTLY:
            text = f"{name} is {value}, and {_reached(explained)}, but it was so"
            if explained.only_changes:
                return f"{text} when it was first read, and this type notifies only of changes.{following}"
            text = f"{text} before the alert was created with evaluate_on_create false"
            return f"{text}, so nothing was sent.{following}"
        case Reason.NOT_EVALUATED_YET:
            text = f"{name} is {value}; the alert was not evaluated on it since the last change of alert, customer or"
            return f"{text} limit.{following}"
        case Reason.GROUP_LIMIT:
            return f"{name} is a new group, and the alert has met as many groups as it may: one more disables it."
        case Reason.NO_THRESHOLDS:
            return f"{name} is {value}; an override of the alert removes all thresholds for this group."
        case Reason.NO_LIMIT:
            return f"{name} is {value}; all thresholds are percentages of a limit, and it has no limit (PutLimit)."
        case Reason.NOTHING_COUNTED:
            return f"Nothing was counted on {name} in this period.{following}"
        case _:
            back = "" if explained.change_time is None else f"; it came back on {shown_time(explained.change_time)}"
            return f"{name} is {value}, which is at no threshold{back}.{following}"


def of_next(following: Next, *, counts_held: bool = False) -> str:
    """What must happen for a notification. counts_held: reservations count as events do."""
    level = format_decimal(following.level)
    one, more = ("event or reservation", "events or reservations") if counts_held else ("event", "events")
    if following.events is not None:
        needed = (
            f"1 more {one} is" if following.events == 1 else f"{format_decimal(following.events)} more {more} are"
        )
        return f"It notifies at {level}: {needed} needed."
    if following.amount is None:
        return f"It notifies when the value gets to {level}."
    if not following.amount:
        return f"It notifies with the next {one} of any amount, for the level {level}."
    return f"It notifies at {level}: with the next {one} of at least {format_decimal(following.amount)}."


def of_threshold(explained: ExplainedGauge, threshold: Threshold) -> str:
    """The state of a threshold on a gauge."""
    name, number = threshold.defined_by
    what = {"value": "The threshold", "recurring_step": "The step of", "percent_of_limit": "The threshold of"}[name]
    shown = f"{what} {format_decimal(number)}{' % of the limit' if name == 'percent_of_limit' else ''}"
    silent_kind = "" if TransitionKind.REACHED in threshold.notify_on else " Its notify_on does not list REACHED."
    known = explained.state.reached.get(threshold.key)
    if known is not None:
        how = "silently " if known.silent else ""
        return f"{shown} was {how}reached at {format_decimal(known.level)} on {shown_time(known.time)}.{silent_kind}"
    if threshold in explained.thresholds.percentages:
        return f"{shown} has no level: no limit applies to the gauge."
    return f"{shown} is not reached.{silent_kind}"


def of_notification(sent: SentNotification, deliveries_are_shown: bool) -> str:
    """What was notified, and to how many endpoints."""
    entry = sent.entry
    number = f" number {entry.sequence}" if entry.sequence else ""  # those of gauges have one
    text = f"{entry.event_type}{number} of {shown_time(entry.create_time)}"
    if not deliveries_are_shown:
        return f"{text}."
    if sent.awaits_fan_out:
        return f"{text}: it waits for the notifier. Check that `tidemark notify` runs."
    if not sent.deliveries:
        return f"{text}: no endpoint wanted it, or its deliveries are deleted."
    done = sum(one.status is DeliveryStatus.DELIVERED for one in sent.deliveries)
    return f"{text}: delivered to {done} of {counted(len(sent.deliveries), 'endpoint')}."


def of_delivery(delivery: Delivery, attempts: Sequence[Attempt]) -> str:
    """The result of a delivery."""
    last = attempts[-1] if attempts else None
    answer = ""
    if last is not None and last.http_status is not None:
        answer = f"; the last answer was {last.http_status}"
    elif last is not None and last.error:
        answer = f"; the last error was: {last.error}"
    tried = counted(delivery.attempt_count, "attempt")
    match delivery.status:
        case DeliveryStatus.DELIVERED:
            return f"{delivery.endpoint_id} got it on {shown_time(delivery.finish_time)} after {tried}."
        case DeliveryStatus.FAILED:
            return f"{delivery.endpoint_id} did not get it: all {tried} failed{answer}."
        case DeliveryStatus.CANCELLED:
            return f"{delivery.endpoint_id} did not get it: the endpoint was disabled or deleted{answer}."
    waits = "an attempt is in progress"
    if delivery.next_attempt_time is not None:
        waits = f"the next attempt is due on {shown_time(delivery.next_attempt_time)}"
    return f"{delivery.endpoint_id} has not got it yet after {tried}{answer}; {waits}."


def of_endpoint(endpoint: Endpoint, outcome: EndpointOutcome) -> str:
    """Whether an endpoint gets the notifications of the alert."""
    name = endpoint.endpoint_id
    match outcome:
        case EndpointOutcome.DISABLED:
            reason = "" if endpoint.disable_reason is None else f" ({endpoint.disable_reason})"
            return f"{name} is disabled{reason}: EnableEndpoint sends again from then on."
        case EndpointOutcome.OTHER_EVENT_TYPES:
            return f"{name} takes only the event types {', '.join(endpoint.event_types)}."
        case EndpointOutcome.OTHER_CONDITION_TYPES:
            return f"{name} takes only the condition types {', '.join(endpoint.condition_types)}."
    if endpoint.failing_since is not None:
        return f"{name} gets them, and its attempts fail since {shown_time(endpoint.failing_since)}."
    return f"{name} gets them."


def gauge_name(gauge: Gauge) -> str:
    """What a gauge measures."""
    measure = gauge.measure
    if measure.days_in_plan:
        what = "the number of days left in the plan"
    elif measure.balances is not None:
        what = "the balance"
    elif measure.invoices is not None:
        what = f"the total of invoices in {measure.currency}"
    elif measure.of_cost:
        what = f"the cost in {measure.currency}"
    else:
        what = f"the usage of {measure.metric_id!r}"
    if gauge.subscription_id is not None:
        what = f"{what} of the subscription {gauge.subscription_id!r}"
    if gauge.group:
        what = f"{what} with {', '.join(f'{key} {value!r}' for key, value in gauge.group)}"
    return what


def _reached(explained: ExplainedGauge) -> str:
    """The furthest reached threshold of a gauge."""
    shown = [
        f"the level {format_decimal(known.level)} was reached on {shown_time(known.time)}"
        for key, known in explained.state.reached.items()
        if explained.threshold_of(key) is not None
    ]
    return " and ".join(shown[-3:])
