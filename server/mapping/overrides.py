"""Threshold overrides: read from requests, with every violation, and written to answers."""

from collections.abc import Sequence

from evaluator.gauges import Group
from evaluator.overrides import MAX_OVERRIDES, Override
from generated.tidemark.v1 import filter_pb2, threshold_pb2
from server.calls.validation import Violations
from server.mapping.thresholds import read_thresholds, threshold_message

MAX_GROUP_VALUE_LENGTH = 256  # characters


def read_overrides(
    violations: Violations,
    path: str,
    overrides: Sequence[threshold_pb2.ThresholdOverride],
    grouping_keys: Sequence[str],
) -> tuple[Override, ...]:
    """The overrides of an alert with those grouping keys, in the caller's order."""
    if overrides and not grouping_keys:
        violations.add(path, "the alert has no grouping_keys, and so no groups with thresholds of their own")
        return ()
    if len(overrides) > MAX_OVERRIDES:
        violations.add(path, f"it has {len(overrides)} overrides; an alert has at most {MAX_OVERRIDES}")
        return ()
    read = []
    indexes: dict[Group, int] = {}
    for index, item in enumerate(overrides):
        at = f"{path}[{index}]"
        before = len(violations.found)
        bound = _bound(violations, at, item, grouping_keys)
        if len(violations.found) == before and (first := indexes.setdefault(tuple(sorted(bound)), index)) != index:
            violations.add(f"{at}.group_values", f"{path}[{first}] binds the same values of the same keys")
        # An override without thresholds is valid: its groups never notify.
        thresholds = read_thresholds(violations, f"{at}.thresholds", item.thresholds, None) if item.thresholds else ()
        read.append(Override(bound, thresholds))
    return tuple(read)


def override_message(override: Override) -> threshold_pb2.ThresholdOverride:
    """An override as answers show it."""
    return threshold_pb2.ThresholdOverride(
        group_values=[filter_pb2.GroupSelector(key=key, value=value) for key, value in override.bound],
        thresholds=map(threshold_message, override.thresholds),
    )


def _bound(
    violations: Violations, at: str, item: threshold_pb2.ThresholdOverride, grouping_keys: Sequence[str]
) -> Group:
    """The keys that an override binds, each with its value."""
    if not item.group_values:
        violations.add(f"{at}.group_values", f"it is required: give values of {', '.join(grouping_keys)}")
    keys = [one.key for one in item.group_values]
    for index, one in enumerate(item.group_values):
        where = f"{at}.group_values[{index}]"
        if one.key not in grouping_keys:
            violations.add(f"{where}.key", f"{one.key!r} is not one of the alert's grouping_keys")
        elif keys.index(one.key) != index:
            violations.add(f"{where}.key", f"group_values[{keys.index(one.key)}] has the same key")
        if not one.HasField("value"):
            violations.add(f"{where}.value", "it is required: leave out a key that may have any value")
        violations.text(f"{where}.value", one.value, max_length=MAX_GROUP_VALUE_LENGTH)
    return tuple((one.key, one.value) for one in item.group_values)
