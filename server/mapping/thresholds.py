"""Thresholds: read from requests, with every violation, and written to answers."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from evaluator.alerts import ConditionType
from evaluator.amounts import ZERO, format_decimal
from evaluator.thresholds import MAX_THRESHOLDS, Direction, Severity, Threshold, TransitionKind
from generated.tidemark.v1 import threshold_pb2
from server.calls.validation import Violations

MAX_CODE_LENGTH = 128  # characters

SEVERITIES: Mapping[Severity, threshold_pb2.Severity.ValueType] = {
    severity: threshold_pb2.Severity.Value(f"SEVERITY_{severity}") for severity in Severity
}
KINDS: Mapping[TransitionKind, threshold_pb2.TransitionKind.ValueType] = {
    kind: threshold_pb2.TransitionKind.Value(f"TRANSITION_KIND_{kind}") for kind in TransitionKind
}
_SEVERITY_OF = {number: severity for severity, number in SEVERITIES.items()}
_KIND_OF = {number: kind for kind, number in KINDS.items()}

_DEFAULT_KINDS = frozenset({TransitionKind.REACHED})


def read_thresholds(
    violations: Violations,
    path: str,
    thresholds: Sequence[threshold_pb2.Threshold],
    condition_type: ConditionType | None,
) -> tuple[Threshold, ...]:
    """The thresholds of an alert, 1 to 20, in the caller's order; none where its condition has a fixed threshold.

    condition_type: None where the condition is missing, or where any type with rising thresholds will do.
    """
    if condition_type is not None and condition_type.own_threshold is not None:
        if thresholds:
            violations.add(path, f"{condition_type} takes none: its threshold is 0")
        return ()
    if not thresholds:
        violations.add(path, f"it is required: give 1 to {MAX_THRESHOLDS} thresholds")
    if len(thresholds) > MAX_THRESHOLDS:
        violations.add(path, f"it has {len(thresholds)} thresholds; an alert has at most {MAX_THRESHOLDS}")
        return ()
    direction = Direction.RISING if condition_type is None else condition_type.direction
    distinct = _Distinct(violations, path)
    read = []
    for index, item in enumerate(thresholds):
        at = f"{path}[{index}]"
        if item.percent_of_limit and condition_type is not None and not condition_type.takes_limits:
            violations.add(
                f"{at}.percent_of_limit",
                f"{condition_type} takes none: limits are for usage or spend of a period; give a value",
            )
        distinct.check_code(index, item.code)
        before = len(violations.found)
        threshold = _read_threshold(violations, at, item, direction)
        distinct.check_level(index, threshold, is_valid=len(violations.found) == before)
        read.append(threshold)
    return tuple(read)


class _Distinct:
    """Notes thresholds of one list that have the same code or the same level, and a second recurring one."""

    def __init__(self, violations: Violations, path: str) -> None:
        self._violations = violations
        self._path = path
        self._codes: dict[str, int] = {}
        self._levels: dict[tuple[str, Decimal], int] = {}
        self._recurring: int | None = None

    def check_code(self, index: int, code: str) -> None:
        if code and (first := self._codes.setdefault(code, index)) != index:
            self._violations.add(f"{self._path}[{index}].code", f"{self._path}[{first}] has the same code")

    def check_level(self, index: int, threshold: Threshold, *, is_valid: bool) -> None:
        """`is_valid`: its fields were read without violations, so that its level can be compared."""
        field, number = threshold.defined_by
        if field == "recurring_step":
            if self._recurring is not None:
                self._violations.add(
                    f"{self._path}[{index}].{field}", f"{self._path}[{self._recurring}] recurs already; only one may"
                )
            else:
                self._recurring = index
        elif is_valid and (first := self._levels.setdefault((field, number), index)) != index:
            self._violations.add(f"{self._path}[{index}].{field}", f"{self._path}[{first}] has the same {field}")


def _read_threshold(
    violations: Violations, at: str, item: threshold_pb2.Threshold, direction: Direction
) -> Threshold:
    if item.recurring_step:
        return _recurring(violations, at, item)
    if item.percent_of_limit:
        return _percent(violations, at, item)
    return _fixed(violations, at, item, direction)


def threshold_message(threshold: Threshold) -> threshold_pb2.Threshold:
    """A threshold as answers show it: as it was defined, with its defaults filled in."""
    shown = threshold_pb2.Threshold(
        code=threshold.code, notify_on=[KINDS[kind] for kind in TransitionKind if kind in threshold.notify_on]
    )
    name, number = threshold.defined_by
    setattr(shown, name, format_decimal(number))
    if threshold.severity is not None:
        shown.severity = SEVERITIES[threshold.severity]
    if (resolve_value := threshold.defined_resolve_value) is not None:
        shown.resolve_value = format_decimal(resolve_value)
    return shown


def _fixed(violations: Violations, at: str, item: threshold_pb2.Threshold, direction: Direction) -> Threshold:
    before = len(violations.found)
    value = violations.decimal(f"{at}.value", item.value)
    resolve_value = None
    if item.resolve_value:
        resolve_value = violations.decimal(f"{at}.resolve_value", item.resolve_value)
        near = resolve_value < value if direction is Direction.RISING else resolve_value > value
        if len(violations.found) == before and not near:
            side = "below" if direction is Direction.RISING else "above"
            violations.add(f"{at}.resolve_value", f"it is {item.resolve_value}; give one {side} {item.value}")
    return Threshold(
        value=value,
        code=_code(violations, at, item),
        severity=_severity(violations, at, item),
        resolve_value=resolve_value,
        notify_on=_notify_on(violations, at, item),
    )


def _percent(violations: Violations, at: str, item: threshold_pb2.Threshold) -> Threshold:
    """A percentage threshold; every condition that takes one is rising."""
    before = len(violations.found)
    percent = violations.decimal(f"{at}.percent_of_limit", item.percent_of_limit)
    if percent < ZERO:
        violations.add(f"{at}.percent_of_limit", f"it is {item.percent_of_limit}; give 0 or more")
    if item.value:
        violations.add(f"{at}.value", "a threshold with percent_of_limit has none: its level follows from the limit")
    resolve_percent = None
    if item.resolve_value:
        resolve_percent = violations.decimal(f"{at}.resolve_value", item.resolve_value)
        if len(violations.found) == before and resolve_percent >= percent:
            violations.add(
                f"{at}.resolve_value",
                f"it is {item.resolve_value}; give a percentage of the limit below {item.percent_of_limit}",
            )
    return Threshold(
        code=_code(violations, at, item),
        severity=_severity(violations, at, item),
        notify_on=_notify_on(violations, at, item),
        percent_of_limit=percent,
        resolve_percent=resolve_percent,
    )


def _recurring(violations: Violations, at: str, item: threshold_pb2.Threshold) -> Threshold:
    before = len(violations.found)
    step = violations.decimal(f"{at}.recurring_step", item.recurring_step)
    if len(violations.found) == before and step <= 0:
        violations.add(f"{at}.recurring_step", f"it is {item.recurring_step}; give a step above 0")
    if item.percent_of_limit:
        violations.add(f"{at}.percent_of_limit", "a recurring threshold has none: its steps are equal")
    if item.value:
        violations.add(
            f"{at}.value",
            "a recurring threshold has none: its steps start at the furthest value of the others, or at 0",
        )
    if item.resolve_value:
        violations.add(f"{at}.resolve_value", "a recurring threshold has none: it resolves step by step")
    return Threshold(
        code=_code(violations, at, item),
        severity=_severity(violations, at, item),
        recurring_step=step,
        notify_on=_notify_on(violations, at, item),
    )


def _code(violations: Violations, at: str, item: threshold_pb2.Threshold) -> str:
    return violations.text(f"{at}.code", item.code, max_length=MAX_CODE_LENGTH)


def _severity(violations: Violations, at: str, item: threshold_pb2.Threshold) -> Severity | None:
    if item.severity and item.severity not in _SEVERITY_OF:
        violations.add(f"{at}.severity", f"{item.severity} is no value of Severity")
    return _SEVERITY_OF.get(item.severity)


def _notify_on(violations: Violations, at: str, item: threshold_pb2.Threshold) -> frozenset[TransitionKind]:
    kinds: set[TransitionKind] = set()
    for index, number in enumerate(item.notify_on):
        kind = _KIND_OF.get(number)
        if kind is None:
            violations.add(f"{at}.notify_on[{index}]", f"{number} is neither REACHED nor RESOLVED")
        elif kind in kinds:
            violations.add(f"{at}.notify_on[{index}]", f"{kind} is given twice")
        else:
            kinds.add(kind)
    return frozenset(kinds) or _DEFAULT_KINDS
