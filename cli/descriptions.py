"""Short descriptions of gauges, for people."""

from generated.tidemark.v1.filter_pb2 import FilterOperator, PriceField, PriceFilter
from generated.tidemark.v1.gauge_pb2 import Gauge


def describe_measure(gauge: Gauge) -> str:
    """What a gauge measures: metric or currency, price filters, group. `USD price_id=a|b region=eu`; `≠` excludes."""
    measure = gauge.cost.currency if gauge.HasField("cost") else gauge.usage.metric_id
    filters = [f"{_describe_filter(one)}{'|'.join(one.values)}" for one in gauge.cost.price_filters]
    return " ".join([measure, *filters, *(f"{value.key}={value.value}" for value in gauge.group)])


def _describe_filter(one: PriceFilter) -> str:
    field = PriceField.Name(one.field).removeprefix("PRICE_FIELD_").lower()
    return f"{field}{'=' if one.operator == FilterOperator.FILTER_OPERATOR_INCLUDES else '≠'}"


def describe_customer(gauge: Gauge) -> str:
    """The customer of a gauge, and the subscription if it has one: `acme/main`."""
    return f"{gauge.customer_id}/{gauge.subscription_id}" if gauge.subscription_id else gauge.customer_id


def describe_gauge(gauge: Gauge) -> str:
    """The customer of a gauge, and what the gauge measures."""
    return f"{describe_customer(gauge)} {describe_measure(gauge)}"
