"""What the change of an alert does to the model of a customer, and what the model waits for after it."""

from collections.abc import Callable, Sequence

from generated.tidemark.v1 import alert_pb2
from tests.reference.alerts import Alert
from tests.support.story.customers import Branch

ModelChange = Callable[[Branch], object]


def unsettled(name: str, answer: alert_pb2.Alert) -> list[str]:
    """The alert, unless the answer to its change says that it is evaluated on all gauges."""
    return [] if answer.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE else [name]


def creating(alert: Alert) -> ModelChange:
    """The alert is there."""
    return lambda branch: branch.model.create(alert)


def editing(alert: Alert, *, reset: bool) -> ModelChange:
    """The alert of that name is like this one."""
    return lambda branch: branch.model.edit(alert, reset=reset)


def switching(name: str, target: Sequence[str], *, on: bool) -> ModelChange:
    """The alert is disabled or enabled: as a whole, for the customer, or for a subscription of it."""
    return lambda branch: branch.model.switch(name, tuple(target), on=on)


def archiving(name: str) -> ModelChange:
    """The alert is gone."""
    return lambda branch: branch.model.archive(name)
