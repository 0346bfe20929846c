"""Updates of alerts: the patch that a request and its mask ask for.

A patch depends only on those fields of the stored alert that never change: its scope, the type of its condition and
what that measures. So it is read before the organization is locked, and is still right under the lock.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from evaluator.alert_commands import AlertPatch
from evaluator.definitions import AlertDefinition
from generated.tidemark.v1 import alert_pb2, alert_service_pb2
from server.calls.validation import Violations
from server.mapping.alerts import read_counts_held, read_display_name, read_state, refuse_large
from server.mapping.conditions import read_condition, scope_message, write_condition
from server.mapping.labels import read_labels
from server.mapping.overrides import read_overrides
from server.mapping.price_filters import read_price_filters
from server.mapping.thresholds import read_thresholds

DISPLAY_NAME, LABELS, STATE, THRESHOLDS = "display_name", "labels", "state", "thresholds"
COUNTS_HELD = "counts_held"
OVERRIDES = "cost_exceeded.threshold_overrides"
PRICE_FILTERS = ("cost_exceeded.price_filters", "spend_exceeded.price_filters")
# The editable fields of conditions: each with its condition and its name.
_OF_CONDITIONS = {path: tuple(path.split(".")) for path in (OVERRIDES, *PRICE_FILTERS)}
_OF_EVERY_ALERT = (DISPLAY_NAME, LABELS, STATE, THRESHOLDS, COUNTS_HELD)
_ALL = (*_OF_EVERY_ALERT, *_OF_CONDITIONS)


def read_patch(definition: AlertDefinition, request: alert_service_pb2.UpdateAlertRequest) -> AlertPatch:
    """The patch of an alert that the request asks for. Raises InvalidArgument with everything that is wrong."""
    violations = Violations()
    sent, condition = request.alert, definition.condition
    case = condition.condition_type.value
    paths = _paths(violations, request, case)
    violations.raise_if_any()
    patch = AlertPatch(reset=request.state_policy == alert_service_pb2.STATE_POLICY_RESET)
    if DISPLAY_NAME in paths:
        patch = replace(patch, display_name=read_display_name(violations, "alert.display_name", sent.display_name))
    if LABELS in paths:
        patch = replace(patch, labels=read_labels(violations, "alert.labels", sent.labels))
    if STATE in paths:
        patch = replace(patch, state=read_state(violations, "alert.state", sent.state))
        if patch.state is None and STATE in request.update_mask.paths and not violations.found:
            violations.add("alert.state", "it is required, because update_mask names it")
    if COUNTS_HELD in paths:
        counts_held = read_counts_held(violations, "alert.counts_held", sent, condition.condition_type)
        patch = replace(patch, counts_held=counts_held)
    if OVERRIDES in paths and case == "cost_exceeded":
        keys = [selector.key for selector in condition.groups]
        overrides = sent.cost_exceeded.threshold_overrides
        patch = replace(patch, overrides=read_overrides(violations, f"alert.{OVERRIDES}", overrides, keys))
    for path in PRICE_FILTERS:
        if path in paths and case == _OF_CONDITIONS[path][0]:
            prices = getattr(sent, case).price_filters
            patch = replace(patch, prices=read_price_filters(violations, f"alert.{path}", prices))
    if THRESHOLDS in paths:
        thresholds = read_thresholds(violations, "alert.thresholds", sent.thresholds, condition.condition_type)
        patch = replace(patch, thresholds=thresholds)
    _refuse_fixed(violations, definition, sent, whole="*" in request.update_mask.paths)
    violations.raise_if_any()
    refuse_large(violations, patch.apply(definition))
    violations.raise_if_any()
    return patch


def check_state_policy(violations: Violations, request: alert_service_pb2.UpdateAlertRequest) -> None:
    """Notes a number that is no StatePolicy."""
    if request.state_policy not in alert_service_pb2.StatePolicy.values():
        violations.add("state_policy", f"{request.state_policy} is no value of StatePolicy")


def _paths(violations: Violations, request: alert_service_pb2.UpdateAlertRequest, case: str) -> Sequence[str]:
    """The paths to change: those of the mask, or without one those of the fields that are set."""
    sent = request.alert
    check_state_policy(violations, request)
    masked = list(request.update_mask.paths)
    if "*" in masked:
        if len(masked) > 1:
            violations.add("update_mask", "* stands for every path: give it alone")
        return _ALL
    for index, path in enumerate(masked):
        at = f"update_mask.paths[{index}]"
        if path not in _ALL:
            violations.add(at, f"{path!r} cannot be changed: give one of {', '.join(_ALL)}, or *")
        elif path in _OF_CONDITIONS and _OF_CONDITIONS[path][0] != case:
            violations.add(at, f"the alert is of the type {case}, which has no such field")
    if masked:
        return masked
    set_paths = [path for path in _OF_EVERY_ALERT if getattr(sent, path)]
    for path, (owner, name) in _OF_CONDITIONS.items():
        if sent.WhichOneof("condition") == owner and getattr(getattr(sent, owner), name):
            set_paths.append(path)
    return set_paths


def _refuse_fixed(violations: Violations, definition: AlertDefinition, sent: alert_pb2.Alert, whole: bool) -> None:
    """Notes the fields of the request that differ from the alert and that nothing can change."""
    if sent.HasField("scope") and sent.scope != scope_message(definition.scope):
        violations.add("alert.scope", "the scope of an alert cannot be changed: create another alert")
    if sent.uniqueness_key and sent.uniqueness_key != definition.uniqueness_key:
        violations.add("alert.uniqueness_key", "it cannot be changed")
    case = sent.WhichOneof("condition")
    if case is None:
        return
    condition_type = definition.condition.condition_type
    if case != condition_type.value:
        violations.add(
            f"alert.{case}", f"the type of an alert cannot be changed: this one is of the type {condition_type}"
        )
        return
    _refuse_another_measure(violations, definition, getattr(sent, case), whole)


def _refuse_another_measure(violations: Violations, definition: AlertDefinition, sent: Message, whole: bool) -> None:
    """Notes the fields of a condition that mean something else than the alert's, in whatever form they are written.

    whole: an empty list means an empty list, and not that the field is left as it is.
    """
    case = definition.condition.condition_type.value
    stored = alert_pb2.Alert()
    write_condition(definition.condition, stored)
    ours = getattr(stored, case)
    editable = {name for owner, name in _OF_CONDITIONS.values() if owner == case}
    given = {field.name for field, _ in sent.ListFields()}
    if whole:
        given |= {field.name for field, _ in ours.ListFields() if field.is_repeated}
    given -= editable
    # The stored condition with the given fields in its place is read as a request is: so "usd" equals "USD", and
    # lists are equal in any order.
    asked = alert_pb2.Alert()
    asked.CopyFrom(stored)
    condition, given_fields = getattr(asked, case), type(ours)()
    given_fields.CopyFrom(sent)
    for name in editable:
        given_fields.ClearField(name)
    for name in given:
        condition.ClearField(name)
    condition.MergeFrom(given_fields)
    read = read_condition(violations, "alert", asked)
    if read is None:
        return
    meant = alert_pb2.Alert()
    write_condition(read, meant)
    for name in sorted(given):
        if _in_any_order(getattr(getattr(meant, case), name)) != _in_any_order(getattr(ours, name)):
            violations.add(f"alert.{case}.{name}", "it cannot be changed: create another alert")


def _in_any_order(value: Any) -> Any:
    """The value of a field; lists with the same items in different orders have equal values."""
    if isinstance(value, (str, bool, int, Message)):
        return value
    return sorted(item if isinstance(item, str) else item.SerializeToString(deterministic=True) for item in value)
