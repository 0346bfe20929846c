"""The number in the contract of each event type.

The command line uses it, too, and should not import the store for it: so it imports nothing of the calls.
"""

from collections.abc import Mapping

from generated.tidemark.v1.event_type_pb2 import EventType
from webhooks.example_events import EXAMPLE_TYPES

NUMBERS: Mapping[str, EventType.ValueType] = {
    name: EventType.Value(f"EVENT_TYPE_{name.replace('.', '_').upper()}") for name in EXAMPLE_TYPES
}
