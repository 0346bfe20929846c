"""Names for the contract's values that people read: gauges, scopes, amounts, times."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from generated.tidemark.v1.condition_pb2 import FilterOperator, PriceField, PriceFilter
from generated.tidemark.v1.usage_pb2 import Gauge


def measure_words(gauge: Gauge) -> str:
    """What a gauge measures, of which prices and which group: `USD price_id=a|b region=eu`; `≠` leaves out."""
    measured = gauge.cost.currency if gauge.HasField("cost") else gauge.usage.metric_id
    narrowed = [f"{_price_words(one)}{'|'.join(one.values)}" for one in gauge.cost.price_filters]
    return " ".join([measured, *narrowed, *(f"{value.key}={value.value}" for value in gauge.group)])


def _price_words(one: PriceFilter) -> str:
    field = PriceField.Name(one.field).removeprefix("PRICE_FIELD_").lower()
    return f"{field}{'=' if one.operator == FilterOperator.FILTER_OPERATOR_INCLUDES else '≠'}"


def owner_words(gauge: Gauge) -> str:
    """Whose gauge it is: the customer, and the subscription where it has one."""
    return f"{gauge.customer_id}/{gauge.subscription_id}" if gauge.subscription_id else gauge.customer_id


def gauge_words(gauge: Gauge) -> str:
    """Whose gauge it is and what it measures."""
    return f"{owner_words(gauge)} {measure_words(gauge)}"


def to_datetime(stamp: Timestamp) -> datetime:
    """The aware UTC time of a protobuf timestamp."""
    time: datetime = stamp.ToDatetime(tzinfo=UTC)
    return time
