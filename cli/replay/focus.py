"""Billing exports in the form of FOCUS 1.x, the specification of the FinOps Foundation: the columns that it names."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from cli.replay.mapping import DEFAULT_COLUMNS, FieldSource, RowMapping

# Every FOCUS export has these, and other files do not have them together.
TELLING = ("BilledCost", "BillingCurrency", "ChargePeriodStart")
COLUMNS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(DEFAULT_COLUMNS, ()),
    "customer_id": ("SubAccountId", "BillingAccountId"),
    "metric_id": ("ServiceName",),
    "quantity": ("ConsumedQuantity",),
    "cost": ("BilledCost",),
    "currency": ("BillingCurrency",),
    "event_time": ("ChargePeriodStart",),
}
# Charges that are no use of something, such as a fee, have no consumed quantity.
UNSET = {"quantity": "0"}
PROPERTIES = {
    "charge_category": "ChargeCategory",
    "charge_class": "ChargeClass",
    "consumed_unit": "ConsumedUnit",
    "region": "RegionId",
    "service": "ServiceName",
}
CATEGORY = "ChargeCategory"
CATEGORIES = ("Usage", "Purchase", "Tax", "Credit", "Adjustment")
# Tidemark's costs are those before taxes and credits.
COUNTED = ("Usage", "Purchase", "Adjustment")


def is_focus(columns: Collection[str]) -> bool:
    """Whether these are the columns of a FOCUS export."""
    return set(TELLING).issubset(columns)


def focus_mapping(mapping: RowMapping, columns: Collection[str], categories: Collection[str]) -> RowMapping:
    """The mapping of a FOCUS export: what options do not say is as above. categories: of the charges that count."""
    named = {name: FieldSource(column) for name, column in PROPERTIES.items() if column in columns}
    return replace(
        mapping,
        usual=COLUMNS,
        unset=UNSET,
        properties={**named, **mapping.properties},
        only=(CATEGORY, frozenset(categories)),
    )
