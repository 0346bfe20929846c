"""Event types: the numbers of the contract, and the names that are stored and that bodies carry."""

from collections.abc import Collection, Mapping, Sequence

from generated.tidemark.v1.event_type_pb2 import EventType
from server.calls.validation import Violations
from server.mapping.event_type_numbers import NUMBERS
from webhooks.example_events import EXAMPLE_TYPES

_NAMES: Mapping[int, str] = {number: name for name, number in NUMBERS.items()}


def read_event_type(
    violations: Violations, path: str, number: EventType.ValueType, valid: Collection[str] = EXAMPLE_TYPES
) -> str:
    """The name of a type in a request; a violation when it is none of the `valid` names."""
    name = _NAMES.get(number, "")
    if name not in valid:
        names = ", ".join(EventType.Name(NUMBERS[one]) for one in valid)
        violations.add(path, f"{number} is not valid here: give one of {names}")
    return name


def read_event_types(
    violations: Violations,
    path: str,
    numbers: Sequence[EventType.ValueType],
    valid: Collection[str] = EXAMPLE_TYPES,
) -> tuple[str, ...]:
    """The names of the types in a request, each once."""
    names = [read_event_type(violations, f"{path}[{index}]", number, valid) for index, number in enumerate(numbers)]
    return tuple(dict.fromkeys(names))
