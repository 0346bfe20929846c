"""One step of an organization, and what differs between the organizations that make it.

A step is its name, a method, and a request in protobuf's text format. `$…` stands for what differs between
organizations. The name of the step is in the ids that the service generates during it: the alert of the step `usage`
is `alt_usage`. `$notification` is the id of the last notification that was listed.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Step(NamedTuple):
    """One call."""

    name: str
    method: str
    request: str = ""
    only: str = ""  # the organization that makes it, unless all do

    @property
    def writes(self) -> bool:
        """Whether it may change anything."""
        return not self.method.startswith(("BatchCheck", "Check", "Get", "List"))


OURS: Mapping[str, str] = {
    "name": "ours",
    "unit": "USD",
    "aggregation": "AGGREGATION_SUM",
    "cadence": "CADENCE_MONTH",
    "amount": "100",
    "more": "7",
    "low": "10",
    "high": "40",
    "limit": "50",
    "quantity": "12",
    "end": "1774576000",
    "type": "USAGE",
    "status": "INVOICE_STATUS_ISSUED",
    "event": "alert.reached",
}
THEIRS: Mapping[str, str] = {
    "name": "theirs",
    "unit": "EUR",
    "aggregation": "AGGREGATION_MAX",
    "cadence": "CADENCE_WEEK",
    "amount": "3000",
    "more": "70",
    "low": "1",
    "high": "3",
    "limit": "2",
    "quantity": "500",
    "end": "1773676000",
    "type": "USAGE",
    "status": "INVOICE_STATUS_PAID",
    "event": "alert.reached",
}

NOW = "seconds: 1773576000"  # the time of the tests' clock
BEFORE = "seconds: 1773500000"
END = "seconds: $end"
