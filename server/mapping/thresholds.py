"""Thresholds: read from requests with all that is wrong with them, and shown in answers."""

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
    kind: ConditionType | None,
) -> tuple[Threshold, ...]:
    """The thresholds of an alert, 1 to 20, in the caller's order; none where its condition has its own line."""
    direction = Direction.RISING if kind is None else kind.direction
    if kind is not None and kind.own_threshold is not None:
        if thresholds:
            violations.add(path, f"{kind} takes none: its line is 0")
        return ()
    if not thresholds:
        violations.add(path, f"it is required: give 1 to {MAX_THRESHOLDS} thresholds")
    if len(thresholds) > MAX_THRESHOLDS:
        violations.add(path, f"it has {len(thresholds)} thresholds; an alert has at most {MAX_THRESHOLDS}")
        return ()
    codes: dict[str, int] = {}
    lines: dict[Decimal, int] = {}
    percents: dict[Decimal, int] = {}
    recurring: int | None = None
    read = []
    for index, item in enumerate(thresholds):
        at = f"{path}[{index}]"
        if item.percent_of_limit and kind is not None and not kind.takes_limits:
            violations.add(
                f"{at}.percent_of_limit",
                f"{kind} takes none, since limits are of what is used or spent in a period: give a value",
            )
        if item.code and (first := codes.setdefault(item.code, index)) != index:
            violations.add(f"{at}.code", f"{path}[{first}] has the same code")
        if item.recurring_step:
            if recurring is not None:
                violations.add(f"{at}.recurring_step", f"{path}[{recurring}] recurs already; only one may")
            recurring = index if recurring is None else recurring
            threshold = _recurring(violations, at, item)
        elif item.percent_of_limit:
            before = len(violations.found)
            threshold = _percent(violations, at, item)
            percent = threshold.percent_of_limit or ZERO
            if len(violations.found) == before and (first := percents.setdefault(percent, index)) != index:
                violations.add(f"{at}.percent_of_limit", f"{path}[{first}] has the same percent_of_limit")
        else:
            before = len(violations.found)
            threshold = _fixed(violations, at, item, direction)
            if len(violations.found) == before and (first := lines.setdefault(threshold.value, index)) != index:
                violations.add(f"{at}.value", f"{path}[{first}] has the same value")
        read.append(threshold)
    return tuple(read)


def threshold_proto(threshold: Threshold) -> threshold_pb2.Threshold:
    """A threshold as answers show it: as it was defined, with what is sent spelled out."""
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
    """A threshold in percent of a limit; all conditions that take one rise."""
    before = len(violations.found)
    percent = violations.decimal(f"{at}.percent_of_limit", item.percent_of_limit)
    if percent < ZERO:
        violations.add(f"{at}.percent_of_limit", f"it is {item.percent_of_limit}; give 0 or more")
    if item.value:
        violations.add(f"{at}.value", "a threshold with percent_of_limit has none: its line comes from the limit")
    resolve_percent = None
    if item.resolve_value:
        resolve_percent = violations.decimal(f"{at}.resolve_value", item.resolve_value)
        if len(violations.found) == before and resolve_percent >= percent:
            violations.add(
                f"{at}.resolve_value",
                f"it is {item.resolve_value}; give a percentage below {item.percent_of_limit}, of the limit as well",
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
        violations.add(f"{at}.recurring_step", f"it is {item.recurring_step}; a step is above 0")
    if item.percent_of_limit:
        violations.add(f"{at}.percent_of_limit", "a threshold that recurs has none: its steps are all alike")
    if item.value:
        violations.add(
            f"{at}.value",
            "a threshold that recurs has none: its steps begin at the furthest of the others, or at 0",
        )
    if item.resolve_value:
        violations.add(f"{at}.resolve_value", "a threshold that recurs has none: it resolves step by step")
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
            violations.add(f"{at}.notify_on[{index}]", f"{kind} stands here twice")
        else:
            kinds.add(kind)
    return frozenset(kinds) or _DEFAULT_KINDS
