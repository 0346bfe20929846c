"""The option --event-type: names of event types, such as alert.reached."""

import click

from generated.tidemark.v1.event_type_pb2 import EventType
from server.mapping.event_type_numbers import NUMBERS


def event_type_numbers(
    context: click.Context, parameter: click.Parameter, names: tuple[str, ...]
) -> list[EventType.ValueType]:
    """The types of the contract with these names, each perhaps several with commas. Raises click.BadParameter."""
    names = tuple(name.strip() for text in names for name in text.split(","))
    for name in names:
        if name not in NUMBERS:
            raise click.BadParameter(f"there is no event type {name!r}; the event types are {', '.join(NUMBERS)}")
    return [NUMBERS[name] for name in names]
