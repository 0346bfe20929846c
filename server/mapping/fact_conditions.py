"""Conditions on invoices: read from requests, with every violation, and written to answers."""

from collections.abc import Iterator, Sequence

from evaluator.alerts import ConditionType
from evaluator.definitions import DEFAULT_CURRENCY, Condition
from evaluator.gauges import Group, InvoiceSelection
from generated.tidemark.v1 import (
    condition_pb2,
    filter_pb2,
)
from server.calls.validation import Violations

MAX_INVOICE_TYPES = 50  # of one alert
MAX_CUSTOM_FIELD_FILTERS = 20  # of one alert, specifier or exclusion
MAX_CUSTOM_FIELD_VALUE_LENGTH = 256  # characters


def invoice_total_reached(
    violations: Violations, at: str, condition: condition_pb2.InvoiceTotalReachedCondition
) -> Condition:
    """The condition on single invoices."""
    types = condition.invoice_types_filter
    if len(types) > MAX_INVOICE_TYPES:
        violations.add(f"{at}.invoice_types_filter", f"it has {len(types)} types; give at most {MAX_INVOICE_TYPES}")
    for index, name in enumerate(types[:MAX_INVOICE_TYPES]):
        violations.identifier(f"{at}.invoice_types_filter[{index}]", name)
    return Condition(
        ConditionType.INVOICE_TOTAL_REACHED,
        currency=violations.currency(f"{at}.currency", condition.currency, default=DEFAULT_CURRENCY),
        invoices=InvoiceSelection(
            types=tuple(sorted(set(types))),
            contract_fields=read_contract_fields(
                violations, f"{at}.custom_field_filters", condition.custom_field_filters, "an invoice"
            ),
        ),
    )


def monthly_invoice_total(
    violations: Violations,
    at: str,
    condition: condition_pb2.MonthlyInvoiceTotalSpendThresholdReachedCondition,
) -> Condition:
    """The condition on the total of a calendar month."""
    return Condition(
        ConditionType.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED,
        currency=violations.currency(f"{at}.currency", condition.currency, default=DEFAULT_CURRENCY),
        invoices=InvoiceSelection(
            monthly=True,
            contract_fields=read_contract_fields(
                violations, f"{at}.custom_field_filters", condition.custom_field_filters, "an invoice"
            ),
        ),
    )


def write_invoice_total_reached(condition: Condition, shown: condition_pb2.InvoiceTotalReachedCondition) -> None:
    """Writes the condition on single invoices to an answer."""
    assert condition.invoices is not None
    shown.currency = condition.currency or ""
    shown.invoice_types_filter.extend(condition.invoices.types)
    shown.custom_field_filters.extend(filter_messages(condition.invoices.contract_fields))


def write_monthly_invoice_total(
    condition: Condition, shown: condition_pb2.MonthlyInvoiceTotalSpendThresholdReachedCondition
) -> None:
    """Writes the condition on the total of a calendar month to an answer."""
    assert condition.invoices is not None
    shown.currency = condition.currency or ""
    shown.custom_field_filters.extend(filter_messages(condition.invoices.contract_fields))


def filter_messages(contract_fields: Group) -> Iterator[filter_pb2.CustomFieldFilter]:
    """Filters by custom fields of contracts as answers show them."""
    for key, value in contract_fields:
        yield filter_pb2.CustomFieldFilter(entity=filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT, key=key, value=value)


def read_contract_fields(
    violations: Violations, path: str, filters: Sequence[filter_pb2.CustomFieldFilter], of: str
) -> Group:
    """Custom fields of the contract, sorted; of: what belongs to the contract, which has no other custom fields."""
    if len(filters) > MAX_CUSTOM_FIELD_FILTERS:
        violations.add(path, f"it has {len(filters)} filters; give at most {MAX_CUSTOM_FIELD_FILTERS}")
        return ()
    found: dict[str, str] = {}
    for index, item in enumerate(filters):
        at = f"{path}[{index}]"
        if item.entity != filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT:
            violations.add(f"{at}.entity", f"{of} has only the custom fields of its contract: set CONTRACT")
        violations.identifier(f"{at}.key", item.key)
        violations.text(f"{at}.value", item.value, max_length=MAX_CUSTOM_FIELD_VALUE_LENGTH)
        if found.setdefault(item.key, item.value) != item.value:
            violations.add(f"{at}.value", f"{of} cannot have two values of {item.key!r}")
    return tuple(sorted(found.items()))
