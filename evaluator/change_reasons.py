"""Why the state of an alert on a gauge changed."""

from enum import StrEnum


class ChangeReason(StrEnum):
    """What made the last transition of a state happen; stored with the state."""

    USAGE = "USAGE"  # an event moved the gauge
    FACT = "FACT"  # the billing system posted a fact, or a timer was due
    DEFINITION = "DEFINITION"  # the alert changed, or the facts that decide whether it covers the customer
