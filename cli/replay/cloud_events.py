"""CloudEvents of a file as usage events: with the mapping, and the ids, of the HTTP gateway."""

from cli.replay import encoding
from cli.replay.compiled import Encoded, ToEvent
from cli.replay.mapping import RowProblem
from cli.replay.rows import Row
from gateway.cloudevents.events import structured
from gateway.cloudevents.mapping import Mapping

_DAY = 86_400  # seconds
# The fields of a mapping that are texts, with their tags.
_TEXTS = (
    ("event_id", encoding.EVENT_ID),
    ("customer_id", encoding.CUSTOMER),
    ("subscription_id", encoding.SUBSCRIPTION),
    ("metric_id", encoding.METRIC),
    ("quantity", encoding.QUANTITY),
    ("cost", encoding.COST),
    ("currency", encoding.CURRENCY),
    ("event_name", encoding.NAME),
    ("reservation_id", encoding.RESERVATION),
)


def of_cloud_events(mapping: Mapping, shift_days: int) -> ToEvent:
    """The function that makes a usage event of a row with a CloudEvent. It raises RowProblem.

    The values of the row are changed.
    """
    shift = shift_days * _DAY
    field, texts = encoding.field, dict(_TEXTS)

    def to_event(row: Row) -> Encoded:
        arguments, problems = mapping.arguments(structured(row.values))
        if problems:
            first = problems[0]
            text = f"{first.path}: {first.description}" if first.path else first.description
            raise RowProblem(text)
        time = arguments.pop("event_time")
        properties = arguments.pop("properties", None)
        seconds = time["seconds"] + shift
        parts = [field(texts[name], text) for name, text in arguments.items() if text]
        parts.append(encoding.time(seconds, time["nanos"]))
        if properties:
            parts += [encoding.entry(encoding.prefix(key), value) for key, value in properties.items()]
        return Encoded(b"".join(parts), seconds)

    return to_event
