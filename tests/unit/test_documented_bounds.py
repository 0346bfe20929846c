"""The bounds that the contract's comments name are those that the service enforces."""

import re
from pathlib import Path

import pytest

from evaluator.alerts import MAX_GROUP_KEYS
from evaluator.definitions import MAX_SPEND_ALERTS
from evaluator.overrides import MAX_OVERRIDES
from evaluator.periods import MAX_INTERVAL_COUNT
from evaluator.thresholds import MAX_RECURRENCES_REPORTED, MAX_THRESHOLDS
from notifier.request_headers import HEADERS
from runtime.configuration import DEFAULT_MAX_BATCH_EVENTS, DEFAULT_RETENTION
from server.alerts import batch_items, batches, usage_rejections
from server.alerts import usage as usage_service
from server.alerts import usage_reading as reading
from server.calls.answer_size import CLIENT_LIMIT, DEFAULT_ANSWER_BYTES, MAX_ANSWER_BYTES, MAX_DEFINITION_BYTES
from server.calls.idempotency import MAX_REQUEST_ID_LENGTH
from server.calls.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from server.calls.validation import MAX_CURRENCY_LENGTH, MAX_ID_LENGTH, MAX_NAME_LENGTH
from server.mapping import (
    alerts,
    balance_conditions,
    balances,
    conditions,
    custom_fields,
    endpoint_settings,
    endpoints,
    event_filters,
    fact_conditions,
    gauges,
    labels,
    notifications,
    plans,
    price_filters,
    thresholds,
)
from server.webhooks.deliveries import LATEST_ATTEMPTS
from store.endpoints.rows import DEFAULT_MAX_IN_FLIGHT
from store.postgres.counting import MAX_TOTAL_SIZE
from webhooks.headers import RESERVED, is_reserved
from webhooks.signing_keys import MAX_SECRET_BYTES, MIN_SECRET_BYTES

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024

# Of each field, or message, the numbers that its comment has to name.
BOUNDS: dict[str, tuple[int, ...]] = {
    "Alert": (MAX_DEFINITION_BYTES // MIB,),
    "Alert.display_name": (MAX_NAME_LENGTH,),
    "Alert.labels": (labels.MAX_LABELS, labels.MAX_LABEL_KEY, labels.MAX_LABEL_VALUE),
    "Alert.thresholds": (MAX_THRESHOLDS,),
    "Alert.uniqueness_key": (alerts.MAX_UNIQUENESS_KEY_LENGTH,),
    "BatchArchiveAlertsRequest.requests": (batch_items.MAX_ITEMS,),
    "BatchArchiveAlertsResponse.alerts": (batches.MAX_ALERT_BYTES // MIB,),
    "BatchCreateAlertsRequest.requests": (batch_items.MAX_ITEMS,),
    "BatchCreateAlertsResponse.alerts": (batches.MAX_ALERT_BYTES // MIB,),
    "BatchCreateAlertsResponse.warnings": (batches.MAX_WARNING_BYTES // 1024,),
    "BatchUpdateAlertsRequest.requests": (batch_items.MAX_ITEMS,),
    "BatchUpdateAlertsResponse.alerts": (batches.MAX_ALERT_BYTES // MIB,),
    "BatchUpdateAlertsResponse.warnings": (batches.MAX_WARNING_BYTES // 1024,),
    "CustomerAlert.gauges": (gauges.MAX_GAUGES,),
    "Balance.contract_custom_fields": (custom_fields.MAX_CUSTOM_FIELDS, custom_fields.MAX_CUSTOM_FIELD_LENGTH),
    "Balance.draw_down_metric_ids": (balances.MAX_DRAW_DOWN_METRICS,),
    "Balance.segments": (balances.MAX_SEGMENTS,),
    "AlertSpecifier.custom_field_filters": (fact_conditions.MAX_CUSTOM_FIELD_FILTERS,),
    "AlertSpecifier.exclude": (balance_conditions.MAX_EXCLUSIONS,),
    "SpecifierExclusion.custom_field_filters": (fact_conditions.MAX_CUSTOM_FIELD_FILTERS,),
    "BalanceSeat.seat_group_value": (balances.MAX_SEAT_LENGTH,),
    "BillingCycle.interval_count": (MAX_INTERVAL_COUNT,),
    "CostExceededCondition.threshold_overrides": (MAX_OVERRIDES,),
    "CreateAlertRequest.request_id": (MAX_REQUEST_ID_LENGTH,),
    "CreateEndpointRequest.secret": (MIN_SECRET_BYTES, MAX_SECRET_BYTES),
    "Customer.custom_fields": (custom_fields.MAX_CUSTOM_FIELDS, custom_fields.MAX_CUSTOM_FIELD_LENGTH),
    "Customer.display_name": (MAX_NAME_LENGTH,),
    "BasicCredentials.username": (endpoint_settings.MAX_USERNAME,),
    "BasicCredentials.password": (endpoint_settings.MAX_PASSWORD,),
    "BearerCredentials.token": (endpoint_settings.MAX_TOKEN,),
    "Endpoint.display_name": (MAX_NAME_LENGTH,),
    "Endpoint.headers": (
        endpoint_settings.MAX_HEADERS,
        endpoint_settings.MAX_HEADER_NAME,
        endpoint_settings.MAX_HEADER_VALUE,
    ),
    "Endpoint.labels": (labels.MAX_LABELS, labels.MAX_LABEL_KEY, labels.MAX_LABEL_VALUE),
    "Endpoint.max_in_flight": (endpoint_settings.MAX_IN_FLIGHT, DEFAULT_MAX_IN_FLIGHT),
    "Endpoint.rate_per_second": (int(endpoint_settings.MAX_RATE),),
    "UsageBatch.batch_id": (usage_service.MAX_BATCH_ID_LENGTH,),
    "UsageBatch.events": (DEFAULT_MAX_BATCH_EVENTS,),
    "UsageBatch.max_answer_bytes": (DEFAULT_ANSWER_BYTES, MAX_ANSWER_BYTES, CLIENT_LIMIT // MIB),
    "UsageOutcome.rejected": (DEFAULT_MAX_BATCH_EVENTS,),
    "GetDeliveryResponse.attempts": (LATEST_ATTEMPTS,),
    "InvoiceTotalReachedCondition.custom_field_filters": (fact_conditions.MAX_CUSTOM_FIELD_FILTERS,),
    "InvoiceTotalReachedCondition.invoice_types_filter": (fact_conditions.MAX_INVOICE_TYPES,),
    "Limit.groups": (plans.MAX_GROUPS,),
    "ListAlertsRequest.page_size": (DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE),
    "ListDeliveriesResponse.total_size": (MAX_TOTAL_SIZE,),
    "ListEndpointsRequest.display_name_prefix": (MAX_NAME_LENGTH,),
    "ListAlertsRequest.display_name_prefix": (MAX_NAME_LENGTH,),
    "ListAlertsResponse.total_size": (MAX_TOTAL_SIZE,),
    "ListNotificationsRequest.customer_ids": (notifications.MAX_FILTER_IDS,),
    "LowCreditBalanceReachedCondition.credit_grant_type_filters": (balance_conditions.MAX_GRANT_TYPES,),
    "LowRemainingCommitBalanceReachedCondition.custom_field_filters": (fact_conditions.MAX_CUSTOM_FIELD_FILTERS,),
    "LowRemainingContractCreditAndCommitBalanceReachedCondition.alert_specifiers": (
        balance_conditions.MAX_SPECIFIERS,
    ),
    "OmittedResults": (DEFAULT_ANSWER_BYTES // MIB,),
    "Rejection.event_id": (MAX_ID_LENGTH, usage_rejections.SHORT_ID_BYTES),
    "Rejection.status": (DEFAULT_ANSWER_BYTES // usage_rejections.FULL_PART // 1024,),
    "RotateSecretRequest.grace": (endpoints.MAX_GRACE.days, 24),
    "CostExceededCondition": (MAX_SPEND_ALERTS,),
    "CostExceededCondition.price_filters": (
        price_filters.MAX_PRICE_FILTERS,
        price_filters.MAX_PRICE_VALUES,
        price_filters.MAX_PRICE_VALUES_BYTES,
    ),
    "SpendExceededCondition": (MAX_SPEND_ALERTS,),
    "SpendExceededCondition.price_filters": (
        price_filters.MAX_PRICE_FILTERS,
        price_filters.MAX_PRICE_VALUES,
        price_filters.MAX_PRICE_VALUES_BYTES,
    ),
    "SpendThresholdReachedCondition.currency": (MAX_CURRENCY_LENGTH,),
    "SpendThresholdReachedCondition.group_values": (MAX_GROUP_KEYS,),
    "SpendThresholdReachedCondition.custom_field_filters": (
        fact_conditions.MAX_CUSTOM_FIELD_FILTERS,
        conditions.MAX_SPEND_FILTER_BYTES,
    ),
    "Threshold.code": (thresholds.MAX_CODE_LENGTH,),
    "Threshold.recurring_step": (MAX_RECURRENCES_REPORTED,),
    "EventFilter.values": (event_filters.MAX_EVENT_FILTER_VALUES, event_filters.MAX_EVENT_FILTER_VALUE_LENGTH),
    "Metric.event_filters": (event_filters.MAX_EVENT_FILTERS,),
    "UsageEvent": (DEFAULT_RETENTION,),
    "UsageEvent.event_id": (MAX_ID_LENGTH,),
    "UsageEvent.event_time": (DEFAULT_RETENTION,),
    "UsageEvent.properties": (reading.MAX_PROPERTIES, reading.MAX_PROPERTY_LENGTH),
}


def comments() -> dict[str, str]:
    """The comment of each message ("Alert") and field ("Alert.display_name") of the contract, as one line."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "proto").rglob("*.proto")):
        message, lines = "", list[str]()
        for line in map(str.strip, path.read_text().splitlines()):
            if line.startswith("//"):
                lines.append(line.removeprefix("//").strip())
                continue
            if match := re.match(r"message (\w+) \{", line):
                message = match[1]
                found[message] = " ".join(lines)
            elif match := re.match(r"(?:repeated |optional |map<.*> )?(?:[\w.]+ )?(\w+) = \d+", line):
                found[f"{message}.{match[1]}"] = " ".join(lines)
            lines = []
    return found


COMMENTS = comments()


@pytest.mark.parametrize("name", BOUNDS)
def test_a_comment_names_the_bounds_that_are_enforced(name: str) -> None:
    named = {int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", COMMENTS[name])}
    assert set(BOUNDS[name]) <= named, COMMENTS[name]


def test_the_headers_that_an_endpoint_may_not_set_are_those_that_the_contract_names() -> None:
    comment = COMMENTS["Endpoint.headers"].lower()
    for name in RESERVED:
        assert name in comment
    assert "webhook-…" in comment
    assert "proxy-…" in comment
    for name in HEADERS:
        assert is_reserved(name) == (name != "Accept")


def test_every_description_of_an_events_identity_names_the_calendar_month() -> None:
    places = {
        "README.md": "Every event counts exactly once",
        "docs/commands.md": "Derived ids",
        "docs/design.md": "The boundary",
        "docs/semantics.md": "An event is identified by",
        "proto/tidemark/v1/alert_service.proto": "EvaluateUsage counts usage",
        "proto/tidemark/v1/error_reason.proto": "ERROR_REASON_EVENT_CONFLICT (ALREADY_EXISTS)",
        "proto/tidemark/v1/usage.proto": "UsageEvent is one use",
    }
    for place, words in places.items():
        text = re.sub(r"\n\s*(//)?\s*", " ", (ROOT / place).read_text()).replace("*", "")
        start = text.index(words)
        assert re.search(r"calendar month \(UTC\)|calendar month, in UTC", text[start : start + 1_200]), place
    promised = re.compile(r"35 days")
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "proto").rglob("*.proto")]:
        if path.name not in ("configuration.md", "faults.md"):
            assert not promised.search(path.read_text()), path
