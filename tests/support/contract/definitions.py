"""An alert of each type of condition, with every field of the condition set that the others allow."""

from typing import Any

from google.protobuf.json_format import ParseDict

from generated.tidemark.v1 import alert_service_pb2

_CONTRACT = {"entity": "CUSTOM_FIELD_ENTITY_CONTRACT", "key": "segment", "value": "enterprise"}
_SPEND = {"spend": {"currency": "EUR"}}
_QUANTITY = {"quantity": {"metricId": "tokens"}}
_FILTERED = {"customFieldFilters": [_CONTRACT]}
_SPECIFIERS = {"alertSpecifiers": [{**_FILTERED, "exclude": [_FILTERED]}]}
_PRICES = [{"field": "PRICE_FIELD_ITEM_ID", "operator": "FILTER_OPERATOR_INCLUDES", "values": ["gpu"]}]
_GROUPS = {"groupValues": [{"key": "region", "value": "eu"}, {"key": "model"}]}
_OVERRIDES = [{"groupValues": [{"key": "region", "value": "eu"}], "thresholds": [{"value": "9"}]}]
_GRANTS = {"currency": "EUR"}

CONDITIONS: dict[str, dict[str, Any]] = {
    "spend_threshold_reached": {"currency": "EUR", **_GROUPS, **_FILTERED},
    "monthly_invoice_total_spend_threshold_reached": {"currency": "EUR", **_FILTERED},
    "usage_threshold_reached": {"metricId": "tokens", **_GROUPS},
    "low_remaining_days_for_commit_segment_reached": _FILTERED,
    "low_remaining_commit_balance_reached": {**_SPEND, **_FILTERED},
    "low_remaining_commit_percentage_reached": {**_QUANTITY, **_FILTERED},
    "low_remaining_days_for_contract_credit_segment_reached": _FILTERED,
    "low_remaining_contract_credit_balance_reached": {**_SPEND, **_FILTERED},
    "low_remaining_contract_credit_percentage_reached": {**_QUANTITY, **_FILTERED},
    "low_remaining_contract_credit_and_commit_balance_reached": {**_SPEND, **_SPECIFIERS},
    "low_remaining_contract_credit_and_commit_percentage_reached": {**_QUANTITY, **_SPECIFIERS},
    "invoice_total_reached": {"currency": "EUR", "invoiceTypesFilter": ["USAGE"], **_FILTERED},
    "low_remaining_seat_balance_reached": {
        **_SPEND,
        **_FILTERED,
        "seatFilter": {"seatGroupKey": "user_id", "seatGroupValue": "u-1"},
    },
    "low_credit_balance_reached": {**_GRANTS, "creditGrantTypeFilters": ["promotion"]},
    "low_remaining_credit_percentage_reached": {**_GRANTS, "creditGrantTypeFilters": ["promotion"]},
    "low_remaining_days_in_plan_reached": {},
    "usage_exceeded": {"metricId": "tokens"},
    "cost_exceeded": {
        "currency": "EUR",
        "groupingKeys": ["region"],
        "thresholdOverrides": _OVERRIDES,
        "priceFilters": _PRICES,
    },
    "spend_exceeded": {"currency": "EUR", "priceFilters": _PRICES},
    "credit_balance_depleted": _GRANTS,
    "credit_balance_dropped": _GRANTS,
    "credit_balance_recovered": _GRANTS,
    "license_balance_threshold_reached": {"licenseType": "support"},
}
_OF_SUBSCRIPTIONS = {"usage_exceeded", "cost_exceeded", "spend_exceeded"}
_WITHOUT_THRESHOLDS = {"credit_balance_depleted", "credit_balance_recovered"}


def new_alert(condition: str) -> alert_service_pb2.CreateAlertRequest:
    """A request with validate_only to create the alert of a condition."""
    customer = {"customer": {"customerId": "acme"}}
    subscription = {"subscription": {"customerId": "acme", "subscriptionId": "acme-pro"}}
    threshold = {"code": "warn", "value": "10", "severity": "SEVERITY_INFO", "notifyOn": ["TRANSITION_KIND_REACHED"]}
    request: dict[str, Any] = {
        "alert": {
            "displayName": "Alert",
            "scope": subscription if condition in _OF_SUBSCRIPTIONS else customer,
            "thresholds": [] if condition in _WITHOUT_THRESHOLDS else [threshold],
            "labels": {"team": "growth"},
            condition: CONDITIONS[condition],
        },
        "validateOnly": True,
    }
    return ParseDict(request, alert_service_pb2.CreateAlertRequest())
