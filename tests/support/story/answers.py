"""What answers of the service show, compared with the models of the customers."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

from generated.tidemark.v1 import customer_alert_pb2
from tests.reference.alerts import Alert, Notification
from tests.reference.gauges import Event, Gauge
from tests.reference.thresholds import Key, State, Transition
from tests.reference.usage import CONFLICT, DUPLICATE, NEW
from tests.support.story.customers import Customer, Outcome, Place
from tests.support.story.feed import Names
from tests.support.story.usage import Outcome as Answer
from tests.support.usage.caller import refusals
from tests.support.usage.words import gauge_of, transition_of

# A transition in an answer: customer, id of the alert, gauge, and the sequence of the notification that must have it.
Claim = tuple[str, str, Gauge, int, Transition]


def fit_answer(
    users: Sequence[Customer],
    batch: Sequence[Event],
    answer: Answer,
    outcomes: Mapping[str, Sequence[Outcome]],
    names: Names,
    *,
    repeated: bool,
) -> list[Claim]:
    """Compares the answer to a batch with the models; of a race, only the branches remain that it fits.

    outcomes: those that are possible for each customer. repeated: whether the batch was sent more than once.
    """
    verdicts = _verdicts(batch, outcomes)
    conflicts = [index for index, verdict in enumerate(verdicts) if verdict == CONFLICT]
    assert [(one.at, one.reason) for one in refusals(answer)] == [(index, "EVENT_CONFLICT") for index in conflicts]
    assert answer.accepted + answer.duplicates == len(batch) - len(conflicts)
    if repeated and answer.accepted == 0:
        return []  # the first try was counted, and its answer was lost
    assert answer.accepted == verdicts.count(NEW)
    assert answer.duplicates == verdicts.count(DUPLICATE)
    values: dict[str, dict[Gauge, Fraction]] = defaultdict(dict)
    for moved in answer.gauges:
        values[moved.customer_id][gauge_of(moved)] = Fraction(moved.value)
    claims = [
        (one.gauge.customer_id, one.alert_id, gauge_of(one.gauge), one.sequence, transition_of(one))
        for one in answer.transitions
        if one.notified and one.event_id
    ]
    for customer in users:
        found = Counter((names.of(one[1]), one[2], one[4]) for one in claims if one[0] == customer.name)
        shown = values[customer.name]
        fitting = [one.values == shown and one.transitions == found for one in outcomes[customer.name]]
        assert any(fitting), "\n".join(one.difference(shown, found) for one in outcomes[customer.name])
        customer.keep(fitting)
    return claims


def _verdicts(batch: Sequence[Event], outcomes: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """What becomes of each event of the batch; the same in each branch of a race."""
    own = {name: iter(found[0].verdicts) for name, found in outcomes.items()}
    return [next(own[event.customer]) for event in batch]


def check_states(
    customer: Customer,
    shown: Iterable[customer_alert_pb2.CustomerAlert],
    observed: Mapping[Place, Sequence[Notification]],
    names: Names,
) -> None:
    """Compares the states of the customer's alerts with the model. observed: the customer's notifications."""
    model = customer.model
    by_name = {names.of(one.alert.alert_id): one for one in shown}
    for alert in model.alerts.values():
        one = by_name.get(alert.name)
        gauges = [] if one is None else one.gauges
        assert {gauge_of(each.gauge) for each in gauges} == model.shown(alert, customer.name)
        for each in gauges:
            gauge = gauge_of(each.gauge)
            state = model.states.get((alert.name, gauge), State())
            assert each.sequence == len(observed.get((alert.name, gauge), ()))
            assert _shown_state(each) == _expected_state(alert, gauge, state)
            assert Fraction(each.gauge.value) == model.values()[gauge]
        alarm = any(item.in_alarm for each in gauges for item in each.thresholds)
        in_alarm = one is not None and one.status == customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM
        assert alarm is in_alarm


def _shown_state(shown: customer_alert_pb2.GaugeState) -> tuple[dict[Key, bool], Fraction | None]:
    """What is reached: fixed levels and percentages, each with whether it is silent; and the furthest step."""
    fixed: dict[Key, bool] = {}
    furthest = None
    for one in shown.thresholds:
        if not one.in_alarm:
            continue
        if one.threshold.recurring_step:
            furthest = Fraction(one.level)
        elif one.threshold.percent_of_limit:
            fixed["limit", Fraction(one.threshold.percent_of_limit)] = one.silent
        else:
            fixed[Fraction(one.level)] = one.silent
    return fixed, furthest


def _expected_state(alert: Alert, gauge: Gauge, state: State) -> tuple[dict[Key, bool], Fraction | None]:
    """The same of the model; only of thresholds that the alert has now."""
    keys = {one.key for one in alert.thresholds_of(gauge.group)}
    return {key: silent for key, silent in state.past.items() if key in keys}, state.furthest_step
