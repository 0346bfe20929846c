"""Updates of alerts: what a request and its mask make of the stored definition."""

from collections.abc import Sequence
from dataclasses import replace

from google.protobuf.message import Message

from evaluator.definitions import AlertDefinition
from generated.tidemark.v1 import alert_pb2, alert_service_pb2
from server.calls.validation import Violations
from server.mapping.alerts import alert_proto, read_definition, refuse_large
from store.alerts.changes import Edit

NAME, THRESHOLDS = "name", "thresholds"
# What of a condition may be changed: the case and the field.
_OF_CONDITIONS = {
    "cost_exceeded.threshold_overrides": ("cost_exceeded", "threshold_overrides"),
    "spend_exceeded.price_filters": ("spend_exceeded", "price_filters"),
}
_ALL = (NAME, THRESHOLDS, *_OF_CONDITIONS)


def read_edit(stored: AlertDefinition, request: alert_service_pb2.UpdateAlertRequest) -> Edit:
    """What the alert is to be. Raises InvalidArgument with everything that is wrong."""
    violations = Violations()
    sent, current = request.alert, alert_proto(stored)
    paths = _paths(violations, request, current)
    violations.raise_if_any()
    wanted = alert_pb2.Alert()
    wanted.CopyFrom(current)
    if NAME in paths:
        wanted.name = sent.name
    if THRESHOLDS in paths:
        del wanted.thresholds[:]
        wanted.thresholds.extend(sent.thresholds)
    for path, (case, name) in _OF_CONDITIONS.items():
        if path in paths and current.WhichOneof("condition") == case:
            condition, sent_condition = getattr(wanted, case), getattr(sent, case)
            condition.ClearField(name)
            getattr(condition, name).extend(getattr(sent_condition, name))
    read = read_definition(violations, wanted)
    _refuse_what_stays(violations, stored, sent, current, whole="*" in request.update_mask.paths)
    violations.raise_if_any()
    assert read is not None, "a definition without violations"
    refuse_large(violations, read)
    violations.raise_if_any()
    return Edit(
        name=read.name,
        condition=read.condition,
        thresholds=read.thresholds,
        reset=request.state_policy == alert_service_pb2.STATE_POLICY_RESET,
    )


def _paths(
    violations: Violations, request: alert_service_pb2.UpdateAlertRequest, current: alert_pb2.Alert
) -> Sequence[str]:
    """What is changed: what the mask names, or else the fields that are set."""
    sent = request.alert
    if request.state_policy not in alert_service_pb2.StatePolicy.values():
        violations.add("state_policy", f"{request.state_policy} is no value of StatePolicy")
    masked = list(request.update_mask.paths)
    if "*" in masked:
        if len(masked) > 1:
            violations.add("update_mask", "* stands for every path: give it alone")
        return _ALL
    case = current.WhichOneof("condition")
    for index, path in enumerate(masked):
        at = f"update_mask.paths[{index}]"
        if path not in _ALL:
            violations.add(at, f"{path!r} cannot be changed: give one of {', '.join(_ALL)}, or *")
        elif path in _OF_CONDITIONS and _OF_CONDITIONS[path][0] != case:
            violations.add(at, f"the alert is of the type {case}, which has no such field")
    if masked:
        return masked
    implied = [path for path, given in ((NAME, bool(sent.name)), (THRESHOLDS, bool(sent.thresholds))) if given]
    for path, (owner, name) in _OF_CONDITIONS.items():
        if sent.WhichOneof("condition") == owner and getattr(getattr(sent, owner), name):
            implied.append(path)
    return implied


def _refuse_what_stays(
    violations: Violations, stored: AlertDefinition, sent: alert_pb2.Alert, current: alert_pb2.Alert, whole: bool
) -> None:
    """Notes what the request says of the alert that is otherwise, and can never be changed."""
    if sent.HasField("scope") and sent.scope != current.scope:
        violations.add("alert.scope", "whom an alert covers cannot be changed: create another alert")
    if sent.uniqueness_key and sent.uniqueness_key != current.uniqueness_key:
        violations.add("alert.uniqueness_key", "it cannot be changed")
    case = sent.WhichOneof("condition")
    if case is None:
        return
    if case != current.WhichOneof("condition"):
        kind = stored.condition.condition_type
        violations.add(f"alert.{case}", f"the type of an alert cannot be changed: this one is {kind}")
        return
    _refuse_another_measure(violations, stored, getattr(sent, case), current, whole)


def _refuse_another_measure(
    violations: Violations, stored: AlertDefinition, theirs: Message, current: alert_pb2.Alert, whole: bool
) -> None:
    """Notes the fields of a condition that say something else than the alert's, however they are written.

    whole: a list that is empty is meant to be empty.
    """
    case = stored.condition.condition_type.value
    ours = getattr(current, case)
    editable = {name for owner, name in _OF_CONDITIONS.values() if owner == case}
    given = {field.name for field, _ in theirs.ListFields()}
    if whole:
        given |= {field.name for field, _ in ours.ListFields() if field.is_repeated}
    given -= editable
    restated = alert_pb2.Alert()
    restated.CopyFrom(current)
    condition, said = getattr(restated, case), type(ours)()
    said.CopyFrom(theirs)
    for name in editable:
        said.ClearField(name)
    for name in given:
        condition.ClearField(name)
    condition.MergeFrom(said)
    read = read_definition(violations, restated)
    if read is None:
        return
    meant = getattr(alert_proto(replace(stored, condition=read.condition)), case)
    for name in sorted(given):
        if getattr(meant, name) != getattr(ours, name):
            violations.add(f"alert.{case}.{name}", "it cannot be changed: create another alert")
