"""Rules of the contract that buf does not check."""

import re
from collections.abc import Iterator

import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_pb2,
    alert_service_pb2,
    audit_service_pb2,
    condition_pb2,
    error_reason_pb2,
    limit_service_pb2,
    webhook_service_pb2,
)

SERVICES: list[ServiceDescriptor] = [
    account_service_pb2.DESCRIPTOR.services_by_name["AccountService"],
    alert_service_pb2.DESCRIPTOR.services_by_name["AlertService"],
    audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"],
    limit_service_pb2.DESCRIPTOR.services_by_name["LimitService"],
    webhook_service_pb2.DESCRIPTOR.services_by_name["WebhookService"],
]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
CONDITION = alert_pb2.Alert.DESCRIPTOR.oneofs_by_name["condition"]

# The 23 types, by the names that both source systems and their users know.
TYPES = [
    "spend_threshold_reached",
    "monthly_invoice_total_spend_threshold_reached",
    "usage_threshold_reached",
    "low_remaining_days_for_commit_segment_reached",
    "low_remaining_commit_balance_reached",
    "low_remaining_commit_percentage_reached",
    "low_remaining_days_for_contract_credit_segment_reached",
    "low_remaining_contract_credit_balance_reached",
    "low_remaining_contract_credit_percentage_reached",
    "low_remaining_contract_credit_and_commit_balance_reached",
    "low_remaining_contract_credit_and_commit_percentage_reached",
    "invoice_total_reached",
    "low_remaining_seat_balance_reached",
    "low_credit_balance_reached",
    "low_remaining_credit_percentage_reached",
    "low_remaining_days_in_plan_reached",
    "usage_exceeded",
    "cost_exceeded",
    "spend_exceeded",
    "credit_balance_depleted",
    "credit_balance_dropped",
    "credit_balance_recovered",
    "license_balance_threshold_reached",
]


def reachable(root: Descriptor, *, by_callers: bool = False) -> Iterator[FieldDescriptor]:
    """The fields of the message, and of every message of this API that it may hold.

    by_callers: exclude output-only fields.
    """
    seen: set[str] = set()
    waiting: list[Descriptor | None] = [root]
    while waiting:
        message = waiting.pop()
        if message is None or message.full_name in seen or message.file.package != "tidemark.v1":
            continue
        seen.add(message.full_name)
        if message.GetOptions().map_entry:
            continue
        for field in message.fields:
            yield field
            if not (by_callers and "OUTPUT_ONLY" in behaviors(field)):
                waiting.append(field.message_type)


def everything() -> Iterator[FieldDescriptor]:
    """Every field of every request and response."""
    for method in METHODS:
        yield from reachable(method.input_type)
        yield from reachable(method.output_type)


def behaviors(field: FieldDescriptor) -> list[str]:
    """The names of the field's google.api.field_behavior."""
    for extension, values in field.GetOptions().ListFields():
        if extension.full_name == "google.api.field_behavior":
            return [field_behavior_pb2.FieldBehavior.Name(value) for value in values]
    return []


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_field_of_a_request_has_its_behavior(method: MethodDescriptor) -> None:
    for field in reachable(method.input_type, by_callers=True):
        assert len(behaviors(field)) == 1, field.full_name


def test_a_field_that_only_answers_fill_in_is_marked() -> None:
    output_only = {field.full_name for field in everything() if behaviors(field) == ["OUTPUT_ONLY"]}
    assert {"tidemark.v1.Alert.alert_id", "tidemark.v1.Customer.current_billing_period"} <= output_only


def test_the_conditions_are_the_23_types_by_name() -> None:
    assert [field.name for field in CONDITION.fields] == TYPES


@pytest.mark.parametrize("number", range(1, 24))
def test_a_condition_its_type_and_its_message_belong_together(number: int) -> None:
    field = alert_pb2.Alert.DESCRIPTOR.fields_by_number[100 + number]
    assert field.containing_oneof is CONDITION
    type_name = condition_pb2.ConditionType.Name(condition_pb2.ConditionType.ValueType(number))
    assert type_name == f"CONDITION_TYPE_{field.name.upper()}"
    words = "".join(word.capitalize() for word in field.name.split("_"))
    assert field.message_type is not None
    assert field.message_type.name == f"{words}Condition"


def test_there_are_no_more_condition_types_than_conditions() -> None:
    assert len(condition_pb2.ConditionType.keys()) == len(TYPES) + 1


def test_every_case_of_a_oneof_is_a_message_of_its_own() -> None:
    for oneof in {field.containing_oneof for field in everything() if field.containing_oneof is not None}:
        if oneof.name.startswith("_"):  # an `optional` field is in a oneof of its own
            continue
        types = [field.message_type for field in oneof.fields]
        assert None not in types, oneof.full_name
        assert len(types) == len(set(types)), oneof.full_name


def test_no_field_is_a_floating_point_number() -> None:
    floating = {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}
    assert [field.full_name for field in everything() if field.type in floating] == []


def test_a_field_of_a_time_ends_in_time() -> None:
    for field in everything():
        message = field.message_type
        is_time = message is not None and message.full_name == "google.protobuf.Timestamp"
        assert is_time == field.name.endswith("_time"), field.full_name


def test_an_error_reason_is_named_in_capitals() -> None:
    for name in error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_name:
        assert re.fullmatch(r"ERROR_REASON_[A-Z]+(_[A-Z]+)*", name)
