"""Alerts: the definition that a request asks for, and what answers and filters say of one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluator.definitions import AlertDefinition, DefinitionState
from evaluator.thresholds import Threshold
from generated.tidemark.v1 import alert_pb2, alert_service_pb2, condition_pb2
from server.calls.answers import MAX_DEFINITION_BYTES
from server.calls.validation import Violations, to_timestamp
from server.mapping.conditions import read_condition, read_scope, scope_proto, write_condition
from server.mapping.thresholds import read_thresholds, threshold_proto
from store.alerts.alerts import NewAlert

MAX_UNIQUENESS_KEY_LENGTH = 128  # characters

_OUTPUT_BYTES = 256  # of the fields that only answers have, at most

_CONDITION_PREFIX = "CONDITION_TYPE_"

STATES: Mapping[DefinitionState, alert_pb2.AlertState.ValueType] = {
    state: alert_pb2.AlertState.Value(f"ALERT_STATE_{state}") for state in DefinitionState
}
_STATE_OF = {number: state for state, number in STATES.items()}


def read_new_alert(violations: Violations, request: alert_service_pb2.CreateAlertRequest) -> NewAlert:
    """The alert to create. Output-only fields are ignored.

    Raises InvalidArgument with everything that is wrong.
    """
    if not request.HasField("alert"):
        violations.add("alert", "it is required")
        violations.raise_if_any()
    read = read_definition(violations, request.alert)
    violations.raise_if_any()
    assert read is not None, "a definition without violations"
    refuse_large(violations, read)
    violations.raise_if_any()
    evaluate_on_create = request.evaluate_on_create if request.HasField("evaluate_on_create") else True
    return replace(read, evaluate_on_create=evaluate_on_create)


def read_definition(violations: Violations, alert: alert_pb2.Alert) -> NewAlert | None:
    """The definition that `alert` says; None where the request has no condition or no scope."""
    if not alert.name:
        violations.add("alert.name", "it is required")
    violations.text("alert.name", alert.name)
    condition = read_condition(violations, "alert", alert)
    kind = condition.condition_type if condition else None
    scope = read_scope(violations, "alert", alert, kind)
    thresholds: tuple[Threshold, ...] = read_thresholds(violations, "alert.thresholds", alert.thresholds, kind)
    violations.text("alert.uniqueness_key", alert.uniqueness_key, max_length=MAX_UNIQUENESS_KEY_LENGTH)
    if condition is None or scope is None:
        return None
    return NewAlert(
        name=alert.name,
        scope=scope,
        condition=condition,
        thresholds=thresholds,
        uniqueness_key=alert.uniqueness_key or None,
        evaluate_on_create=True,
    )


def refuse_large(violations: Violations, read: NewAlert) -> None:
    """Notes that a definition is longer than an alert may be, as answers spell it out."""
    shown = alert_pb2.Alert(
        name=read.name,
        scope=scope_proto(read.scope),
        thresholds=map(threshold_proto, read.thresholds),
        uniqueness_key=read.uniqueness_key or "",
    )
    write_condition(read.condition, shown)
    size = shown.ByteSize() + _OUTPUT_BYTES
    if size > MAX_DEFINITION_BYTES:
        violations.add(
            "alert",
            f"as answers show it, it has {size} bytes, and an alert has at most {MAX_DEFINITION_BYTES}: give fewer"
            " threshold_overrides, or shorter codes and values",
        )


def alert_proto(definition: AlertDefinition) -> alert_pb2.Alert:
    """An alert as answers show it."""
    evaluating = definition.visit_after is not None
    shown = alert_pb2.Alert(
        alert_id=definition.alert_id,
        name=definition.name,
        scope=scope_proto(definition.scope),
        thresholds=map(threshold_proto, definition.thresholds),
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
    write_condition(definition.condition, shown)
    return shown


def read_states(
    violations: Violations, path: str, states: Sequence[alert_pb2.AlertState.ValueType]
) -> tuple[DefinitionState, ...]:
    """A filter by states."""
    for index, number in enumerate(states):
        if number not in _STATE_OF:
            violations.add(f"{path}[{index}]", f"{number} is no state of an alert")
    return tuple(_STATE_OF[number] for number in states if number in _STATE_OF)


def read_condition_types(
    violations: Violations, path: str, types: Sequence[condition_pb2.ConditionType.ValueType]
) -> tuple[str, ...]:
    """A filter by types, as the names of cases; those that are not evaluated are fine, and find nothing."""
    names = []
    for index, number in enumerate(types):
        if number == condition_pb2.CONDITION_TYPE_UNSPECIFIED or number not in condition_pb2.ConditionType.values():
            violations.add(f"{path}[{index}]", f"{number} is no type of a condition")
        else:
            names.append(condition_pb2.ConditionType.Name(number).removeprefix(_CONDITION_PREFIX).lower())
    return tuple(names)
