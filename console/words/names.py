"""The names of enum values and conditions as people read them."""

from google.protobuf.descriptor import EnumDescriptor

from generated.tidemark.v1 import alert_pb2, condition_pb2, event_type_pb2

CONDITIONS = tuple(alert_pb2.Alert.DESCRIPTOR.oneofs_by_name["condition"].fields)


_PROPER = {"HMAC_SHA256": "HMAC SHA-256", "ED25519": "Ed25519"}


def words_of(name: str) -> str:
    """`low_credit_balance_reached` as `Low credit balance reached`."""
    text = name.replace("_", " ").strip().lower()
    return text[:1].upper() + text[1:]


def enum_words(descriptor: EnumDescriptor, number: int) -> str:
    """`CUSTOMER_ALERT_STATUS_IN_ALARM` as `In alarm`; empty for the value that is unset."""
    value = descriptor.values_by_number.get(number)
    if value is None:
        return str(number)
    short = value.name.removeprefix(prefix_of(descriptor))
    if short in _PROPER:
        return _PROPER[short]
    return "" if short == "UNSPECIFIED" else words_of(short)


def prefix_of(descriptor: EnumDescriptor) -> str:
    """What the names of an enum's values begin with: `ALERT_STATE_`."""
    first: str = descriptor.values[0].name
    return first.removesuffix("UNSPECIFIED")


def condition_words(condition_type: int) -> str:
    """The type of a condition."""
    return enum_words(condition_pb2.ConditionType.DESCRIPTOR, condition_type)


def event_type_name(number: int) -> str:
    """`alert.reached`, as bodies and webhooks write it."""
    value = event_type_pb2.EventType.DESCRIPTOR.values_by_number.get(number)
    if value is None:
        return str(number)
    first, _, rest = value.name.removeprefix("EVENT_TYPE_").lower().partition("_")
    return f"{first}.{rest}"
