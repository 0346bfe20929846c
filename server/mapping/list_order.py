"""The order of lists by the time at which their items were created."""

from generated.tidemark.v1 import list_order_pb2
from server.calls.validation import Violations


def read_newest_first(
    violations: Violations, order: list_order_pb2.ListOrder.ValueType, *, unset: bool = False
) -> bool:
    """Whether a list begins with its newest item; `unset` where the request sets no order."""
    if order not in list_order_pb2.ListOrder.values():
        violations.add("order", f"{order} is no order of a list")
    if order == list_order_pb2.LIST_ORDER_UNSPECIFIED:
        return unset
    return order == list_order_pb2.LIST_ORDER_NEWEST_FIRST
