"""CloudEvents of a file as usage events: with the mapping, and the ids, of the HTTP gateway."""

from cli.replay.compiled import Encoded, ToEvent
from cli.replay.mapping import RowProblem
from cli.replay.rows import Row
from gateway.cloudevents.events import structured
from gateway.cloudevents.mapping import Mapping
from generated.tidemark.v1.usage_pb2 import UsageEvent

_DAY = 86_400  # seconds


def of_cloud_events(mapping: Mapping, shift_days: int) -> ToEvent:
    """The function that makes a usage event of a row with a CloudEvent. It raises RowProblem."""

    def to_event(row: Row) -> Encoded:
        arguments, problems = mapping.arguments(structured(dict(row.values)))
        if problems:
            first = problems[0]
            text = f"{first.path}: {first.description}" if first.path else first.description
            raise RowProblem(text)
        arguments["event_time"]["seconds"] += shift_days * _DAY
        event = UsageEvent(**arguments)
        return Encoded(event.SerializeToString(), event.event_time.seconds)

    return to_event
