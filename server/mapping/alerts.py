"""Alerts: read from requests, and written to answers; also the filters of lists of alerts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluator.alert_commands import NewAlert
from evaluator.alerts import ConditionType
from evaluator.definitions import AlertDefinition, DefinitionState
from generated.tidemark.v1 import alert_pb2, condition_pb2
from generated.tidemark.v1 import alert_service_pb2 as messages
from server.calls.answer_size import MAX_DEFINITION_BYTES
from server.calls.validation import Violations, to_timestamp
from server.mapping.conditions import read_condition, read_scope, scope_message, write_condition
from server.mapping.labels import read_labels
from server.mapping.thresholds import read_thresholds, threshold_message

MAX_UNIQUENESS_KEY_LENGTH = 128  # characters

_OUTPUT_BYTES = 256  # at most, of the fields that only answers have

_CONDITION_PREFIX = "CONDITION_TYPE_"

STATES: Mapping[DefinitionState, alert_pb2.AlertState.ValueType] = {
    state: alert_pb2.AlertState.Value(f"ALERT_STATE_{state}") for state in DefinitionState
}
_STATE_OF = {number: state for state, number in STATES.items()}


def read_new_alert(
    violations: Violations, request: messages.CreateAlertRequest | messages.UpdateAlertRequest
) -> NewAlert:
    """The alert to create. Output-only fields are ignored.

    Raises InvalidArgument with everything that is wrong.
    """
    if not request.HasField("alert"):
        violations.add("alert", "it is required")
        violations.raise_if_any()
    alert = request.alert
    display_name = read_display_name(violations, "alert.display_name", alert.display_name)
    condition = read_condition(violations, "alert", alert)
    condition_type = condition.condition_type if condition else None
    counts_held = read_counts_held(violations, "alert.counts_held", alert, condition_type)
    scope = read_scope(violations, "alert", alert, condition_type)
    thresholds = read_thresholds(violations, "alert.thresholds", alert.thresholds, condition_type)
    violations.text("alert.uniqueness_key", alert.uniqueness_key, max_length=MAX_UNIQUENESS_KEY_LENGTH)
    labels = read_labels(violations, "alert.labels", alert.labels)
    state = _read_first_state(violations, alert.state)
    violations.raise_if_any()
    assert condition is not None, "a missing condition is a violation"
    assert scope is not None, "a missing scope is a violation"
    new = NewAlert(
        display_name=display_name,
        scope=scope,
        condition=replace(condition, counts_held=counts_held),
        thresholds=thresholds,
        uniqueness_key=alert.uniqueness_key or None,
        evaluate_on_create=request.evaluate_on_create if request.HasField("evaluate_on_create") else True,
        labels=labels,
        state=state,
    )
    refuse_large(violations, new)
    violations.raise_if_any()
    return new


def read_display_name(violations: Violations, path: str, display_name: str) -> str:
    """The display name of an alert, which is required."""
    if not display_name:
        violations.add(path, "it is required")
    return violations.text(path, display_name)


def read_counts_held(
    violations: Violations, path: str, alert: alert_pb2.Alert, condition_type: ConditionType | None
) -> bool:
    """Whether thresholds are compared with what open reservations hold, too."""
    if alert.counts_held and condition_type is not None and not condition_type.counts_usage:
        violations.add(path, f"only conditions on usage and spend count what is held, and {condition_type} does not")
    return alert.counts_held


def read_state(violations: Violations, path: str, state: alert_pb2.AlertState.ValueType) -> DefinitionState | None:
    """The state that an alert is to have; None if it is unset."""
    if state == alert_pb2.ALERT_STATE_UNSPECIFIED:
        return None
    if state not in _STATE_OF:
        violations.add(path, f"{state} is no state of an alert")
    return _STATE_OF.get(state)


def _read_first_state(violations: Violations, state: alert_pb2.AlertState.ValueType) -> DefinitionState:
    wanted = read_state(violations, "alert.state", state) or DefinitionState.ACTIVE
    if wanted is DefinitionState.ARCHIVED:
        violations.add("alert.state", "a new alert is active or disabled")
    return wanted


def refuse_large(violations: Violations, alert: NewAlert | AlertDefinition) -> None:
    """Notes that an alert is longer, as answers show it, than an alert may be."""
    shown = alert_pb2.Alert(
        display_name=alert.display_name,
        scope=scope_message(alert.scope),
        thresholds=map(threshold_message, alert.thresholds),
        uniqueness_key=alert.uniqueness_key or "",
        labels=alert.labels,
    )
    write_condition(alert.condition, shown)
    size = shown.ByteSize() + _OUTPUT_BYTES
    if size > MAX_DEFINITION_BYTES:
        violations.add(
            "alert",
            f"as answers show it, it has {size} bytes, and an alert has at most {MAX_DEFINITION_BYTES}: give fewer"
            " threshold_overrides, or shorter codes and values",
        )


def alert_message(definition: AlertDefinition) -> alert_pb2.Alert:
    """An alert as answers show it."""
    shown = abridged_message(definition)
    shown.display_name = definition.display_name
    shown.labels.update(definition.labels)
    shown.scope.CopyFrom(scope_message(definition.scope))
    shown.thresholds.extend(map(threshold_message, definition.thresholds))
    write_condition(definition.condition, shown)
    shown.counts_held = definition.condition.counts_held
    return shown


def abridged_message(definition: AlertDefinition) -> alert_pb2.Alert:
    """An alert without display name, labels, scope, condition and thresholds."""
    evaluating = definition.backfill_after is not None
    shown = alert_pb2.Alert(
        alert_id=definition.alert_id,
        uniqueness_key=definition.uniqueness_key or "",
        uniqueness_key_released=definition.uniqueness_key is not None and not definition.uniqueness_key_held,
        state=STATES[definition.state],
        evaluation_status=(
            alert_pb2.EVALUATION_STATUS_EVALUATING if evaluating else alert_pb2.EVALUATION_STATUS_DONE
        ),
        create_time=to_timestamp(definition.create_time),
        update_time=to_timestamp(definition.update_time),
        etag=str(definition.version),
        version=definition.version,
    )
    if definition.archive_time is not None:
        shown.archive_time.CopyFrom(to_timestamp(definition.archive_time))
    return shown


def read_states(
    violations: Violations, path: str, states: Sequence[alert_pb2.AlertState.ValueType]
) -> tuple[DefinitionState, ...]:
    """A filter by states, each once."""
    for index, number in enumerate(states):
        if number not in _STATE_OF:
            violations.add(f"{path}[{index}]", f"{number} is no state of an alert")
    return tuple(dict.fromkeys(_STATE_OF[number] for number in states if number in _STATE_OF))


def read_condition_type(
    violations: Violations, path: str, number: condition_pb2.ConditionType.ValueType
) -> ConditionType | None:
    """One type of a condition; None, and a violation, for a number that is none."""
    if number == condition_pb2.CONDITION_TYPE_UNSPECIFIED or number not in condition_pb2.ConditionType.values():
        violations.add(path, f"{number} is no type of a condition")
        return None
    return ConditionType(condition_pb2.ConditionType.Name(number).removeprefix(_CONDITION_PREFIX).lower())


def read_condition_types(
    violations: Violations, path: str, types: Sequence[condition_pb2.ConditionType.ValueType]
) -> tuple[str, ...]:
    """A filter by types, as the names of cases, each once."""
    found = [read_condition_type(violations, f"{path}[{index}]", number) for index, number in enumerate(types)]
    names = [one.value for one in found if one is not None]
    return tuple(dict.fromkeys(names))
