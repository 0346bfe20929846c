"""The series that a PromQL expression reads: a tokenizer, and as much of the grammar as it takes to find them.

It is no check of the whole syntax, which `promtool check rules` makes where it is installed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""
    (?P<blank>\s+|\#[^\n]*)
  | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`[^`]*`)
  | (?P<duration>(?:\d+(?:ms|[smhdwy]))+|\$__\w+)
  | (?P<number>0x[0-9a-f]+|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)
  | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
  | (?P<operator>=~|!~|==|!=|>=|<=|[-+*/%^=<>(){}\[\],:@])
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BEFORE_LABELS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_KEYWORDS = {"and", "or", "unless", "offset", "bool", "inf", "nan", *_BEFORE_LABELS}
_AGGREGATIONS = {
    *(
        "sum",
        "min",
        "max",
        "avg",
        "group",
        "stddev",
        "stdvar",
        "count",
        "count_values",
        "bottomk",
        "topk",
        "quantile",
    ),
}
# The functions that may be used, each with its number of arguments at most.
_FUNCTIONS = {
    *("rate", "irate", "increase", "delta", "deriv", "histogram_quantile", "absent", "clamp_min", "clamp_max", "abs"),
    *(
        "max_over_time",
        "min_over_time",
        "avg_over_time",
        "sum_over_time",
        "vector",
        "scalar",
        "time",
        "round",
        "sort",
    ),
    *(
        "label_replace",
        "label_join",
        "changes",
        "resets",
        "timestamp",
        "sort_desc",
        "absent_over_time",
        "label_values",
    ),
}
_PAIRS = {"(": ")", "{": "}", "[": "]"}


class NotPromQL(Exception):
    """The expression cannot be read."""


@dataclass
class Selector:
    """A series that is read. labels: the names in its matchers."""

    name: str
    labels: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Read:
    """What an expression reads. grouped_by: the labels of by, on and group_left clauses."""

    selectors: Sequence[Selector]
    grouped_by: Sequence[str]


def read(expression: str) -> Read:
    """The series that an expression reads. Raises NotPromQL."""
    tokens = list(_tokens(expression))
    _check_pairs(tokens)
    selectors, grouped = list[Selector](), list[str]()
    position = 0
    while position < len(tokens):
        kind, text = tokens[position]
        position += 1
        if text == "[":  # the time of a range
            _, position = _until(tokens, position, "]")
        if kind != "name":
            continue
        following = tokens[position][1] if position < len(tokens) else ""
        lower = text.lower()
        if lower in _BEFORE_LABELS:
            if following == "(":
                labels, position = _until(tokens, position + 1, ")")
                grouped += [one for of_kind, one in labels if of_kind == "name"]
        elif lower in _AGGREGATIONS or lower in _FUNCTIONS:
            if following not in ("(", "by", "without"):
                raise NotPromQL(f"{text} is a function, and has no arguments in: {expression}")
        elif lower not in _KEYWORDS:
            if following == "(":
                raise NotPromQL(f"{text} is no function: {expression}")
            selector = Selector(text)
            if following == "{":
                matchers, position = _until(tokens, position + 1, "}")
                selector.labels = _labels(matchers, expression)
            selectors.append(selector)
    if not selectors:
        raise NotPromQL(f"reads no series: {expression}")
    return Read(selectors, grouped)


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(expression):
        found = _TOKEN.match(expression, position)
        if found is None:
            raise NotPromQL(f"cannot be read from {expression[position : position + 20]!r} on: {expression}")
        position = found.end()
        if found.lastgroup != "blank":
            assert found.lastgroup is not None
            yield found.lastgroup, found[0]


def _check_pairs(tokens: Sequence[tuple[str, str]]) -> None:
    open_pairs = list[str]()
    for kind, text in tokens:
        if kind == "operator" and text in _PAIRS:
            open_pairs.append(_PAIRS[text])
        elif kind == "operator" and text in _PAIRS.values() and (not open_pairs or open_pairs.pop() != text):
            raise NotPromQL(f"{text} closes nothing")
    if open_pairs:
        raise NotPromQL(f"{open_pairs[-1]} is missing")


def _until(tokens: Sequence[tuple[str, str]], start: int, end: str) -> tuple[list[tuple[str, str]], int]:
    """The tokens up to `end`, and the position after it."""
    position = start
    while tokens[position][1] != end:
        position += 1
    return list(tokens[start:position]), position + 1


def _labels(matchers: Sequence[tuple[str, str]], expression: str) -> list[str]:
    """The labels of the matchers in braces."""
    found = list[str]()
    rest = [one for one in matchers if one[1] != ","]
    for index in range(0, len(rest), 3):
        part = rest[index : index + 3]
        kinds = [kind for kind, _ in part]
        if kinds != ["name", "operator", "string"] or part[1][1] not in ("=", "!=", "=~", "!~"):
            raise NotPromQL(f"has a matcher that cannot be read: {expression}")
        found.append(part[0][1])
    return found
