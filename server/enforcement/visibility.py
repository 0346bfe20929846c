"""What a caller may see of a decision: a key of one customer gets no amounts of the customers above it."""

from generated.tidemark.v1 import decision_pb2
from server.calls import current_call

_OF_HOLDER = ("limit_id", "customer_id", "groups", "amount", "counted", "held", "remaining")


def only_customer() -> str:
    """The customer to which the key of the current call is limited; empty if it is to none."""
    caller = current_call.get().caller
    return "" if caller is None else caller.customer_id


def hide_others(decision: decision_pb2.Decision, customer_id: str) -> None:
    """Removes what limits of other customers show of these: usage of all below them counts there."""
    states = [*decision.over, *([decision.limit] if decision.HasField("limit") else [])]
    for state in states:
        if state.customer_id != customer_id:
            for name in _OF_HOLDER:
                state.ClearField(name)  # type: ignore[arg-type]
