"""One style in all services: the same field has the same name, number and type wherever it stands.

A rule names its exceptions here, each with the reason.
"""

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from proto.documents.contract import MESSAGES, METHODS
from tests.support.contract.methods import LISTS, MUTATING, NOT_VALIDATED, UNARY

# Every other mutating call has a request_id.
WITHOUT_REQUEST_ID = {
    "an event is counted once by its event_id": {"EvaluateUsageBatch"},
    "a put that is repeated stores the same again": {
        *("PutCustomer", "PutSubscription", "PutMetric", "PutPlan", "PutLimit", "PutInvoice", "PutBalance"),
        "PutRechargePolicy",
    },
    "a change of the ledger is made once by its adjustment_id": {"AdjustBalance", "DecrementBalances"},
    "a reservation is made, and settled, once by its reservation_id": {"ReserveUsage", "SettleReservation"},
    "a release or an extension that is repeated leaves the same reservation": {
        *("ReleaseReservation", "ExtendReservation"),
    },
    "a recharge is reported once, by its recharge_id": {"ReportRecharge"},
    "the uniqueness_key finds the alert that the first request created": {"UpdateAlert"},
    "an update that is repeated leaves the same fields": {"UpdateEndpoint"},
    "what is in that state already stays in it": {
        *("EnableAlert", "DisableAlert", "ArchiveAlert", "ReleaseUniquenessKey"),
        *("EnableEndpoint", "DisableEndpoint", "VoidBalance", "EnableRechargePolicy"),
    },
    "a reset that is repeated resets the same state, and creates nothing": {"ResetCustomerAlert"},
    "what is deleted cannot be deleted again": {
        *("DeleteSubscription", "DeleteMetric", "DeletePlan", "DeleteLimit", "DeleteEndpoint"),
        "DeleteRechargePolicy",
    },
}

# A string whose name sounds like a closed set. The caller invents the values of these.
OPEN_SETS = {
    "tidemark.v1.Balance.credit_grant_type",
    "tidemark.v1.Balance.license_type",
    "tidemark.v1.Invoice.type",
    "tidemark.v1.LicenseBalanceThresholdReachedCondition.license_type",
    "tidemark.v1.ListInvoicesRequest.type",
}
CLOSED = {
    *("type", "types", "status", "statuses", "state", "states", "kind", "kinds", "reason", "reasons", "scheme"),
    *("policy", "order", "cadence", "aggregation", "mode"),
}

# The same name means the same thing, at the same number where requests and answers are concerned.
REQUEST_NUMBERS = {"request_id": 14, "validate_only": 15, "update_mask": 2}
LIST_NUMBERS = {"page_size": 1, "page_token": 2}
ANSWER_NUMBERS = {"next_page_token": 2, "total_size": 3, "warnings": 2, "replayed": 15}

FORBIDDEN = {
    "metadata": "custom_fields on facts, labels on definitions",
    "description": "display_name",
    "name": "display_name",
    "title": "display_name",
    "tags": "labels",
}

TEXT = FieldDescriptor.TYPE_STRING
BOOL = FieldDescriptor.TYPE_BOOL
INT32 = FieldDescriptor.TYPE_INT32
TYPES = {
    **dict.fromkeys(("request_id", "page_token", "next_page_token", "display_name"), TEXT),
    **dict.fromkeys(("validate_only", "replayed", "allow_missing", "include_total_size"), BOOL),
    **dict.fromkeys(("page_size", "total_size"), INT32),
}


def named(method: MethodDescriptor) -> str:
    """The name of a method, for the ids of tests."""
    return str(method.name)


def numbers(message: Descriptor) -> dict[str, int]:
    """The numbers of the fields of a message."""
    return {field.name: field.number for field in message.fields}


def all_fields() -> dict[str, FieldDescriptor]:
    """Every field of the contract, once, by its full name."""
    return {field.full_name: field for message in MESSAGES for field in message.fields}


@pytest.mark.parametrize("method", MUTATING, ids=named)
def test_mutating_request_can_be_validated(method: MethodDescriptor) -> None:
    assert ("validate_only" not in numbers(method.input_type)) == (method.name in NOT_VALIDATED)


@pytest.mark.parametrize("method", MUTATING, ids=named)
def test_mutating_request_has_a_request_id_unless_it_is_idempotent_without_one(method: MethodDescriptor) -> None:
    without = set().union(*WITHOUT_REQUEST_ID.values())
    assert ("request_id" not in numbers(method.input_type)) == (method.name in without)


def test_exceptions_name_methods_of_today_and_each_has_one_reason() -> None:
    named_once = [name for names in WITHOUT_REQUEST_ID.values() for name in names]
    assert len(named_once) == len(set(named_once))
    assert {*named_once, *NOT_VALIDATED} <= {method.name for method in MUTATING}
    assert all_fields().keys() >= OPEN_SETS


@pytest.mark.parametrize("method", MUTATING, ids=named)
def test_answer_says_that_it_is_a_replay_where_a_request_can_be_one(method: MethodDescriptor) -> None:
    repeatable = {"request_id", "adjustment_id", "recharge_id", "reservation_id"} & numbers(method.input_type).keys()
    assert bool(repeatable) == ("replayed" in numbers(method.output_type))


@pytest.mark.parametrize("method", METHODS, ids=named)
def test_shared_fields_of_requests_and_answers_have_one_number(method: MethodDescriptor) -> None:
    for message, expected in ((method.input_type, REQUEST_NUMBERS), (method.output_type, ANSWER_NUMBERS)):
        found = numbers(message)
        assert {name: number for name, number in found.items() if name in expected} == {
            name: number for name, number in expected.items() if name in found
        }


@pytest.mark.parametrize("method", LISTS, ids=named)
def test_list_begins_with_its_page_and_returns_the_resources_first(method: MethodDescriptor) -> None:
    request, answer = numbers(method.input_type), numbers(method.output_type)
    assert {name: request[name] for name in LIST_NUMBERS} == LIST_NUMBERS
    assert method.output_type.fields_by_number[1].is_repeated
    assert "next_page_token" in answer
    assert ("total_size" in answer) == ("include_total_size" in request)


@pytest.mark.parametrize("method", LISTS, ids=named)
def test_order_and_total_size_follow_the_filters_of_a_list(method: MethodDescriptor) -> None:
    request = numbers(method.input_type)
    request.pop("max_answer_bytes", None)
    request.pop("customer_id_prefix", None)  # came after the first version
    last = [name for name in ("order", "include_total_size") if name in request]
    assert sorted(request, key=lambda name: request[name])[len(request) - len(last) :] == last


def test_a_range_of_time_has_both_its_ends() -> None:
    for method in LISTS:
        request = numbers(method.input_type)
        assert ("start_time" in request) == ("end_time" in request), method.name


def test_paged_answers_of_other_methods_use_the_same_names() -> None:
    paged = [method for method in UNARY if "next_page_token" in numbers(method.output_type)]
    for method in paged:
        assert LIST_NUMBERS.keys() <= numbers(method.input_type).keys(), method.name
    # The ids of its resource come first: it reads one resource, in pages of its gauges.
    assert [method.name for method in paged if method not in LISTS] == ["GetCustomerAlert"]


@pytest.mark.parametrize("word", FORBIDDEN)
def test_one_concept_has_one_name(word: str) -> None:
    assert [name for name, field in all_fields().items() if field.name == word] == [], FORBIDDEN[word]


def test_fields_of_callers_are_maps_of_text_and_no_resource_has_both_kinds() -> None:
    owners: dict[str, set[str]] = {"labels": set(), "custom_fields": set()}
    for field in all_fields().values():
        if field.name in owners:
            entry = field.message_type
            assert entry is not None
            assert entry.GetOptions().map_entry, field.full_name
            assert [one.type for one in entry.fields] == [TEXT, TEXT], field.full_name
            assert field.containing_type is not None
            owners[field.name].add(field.containing_type.name)
    assert {"Alert", "Endpoint"} <= owners["labels"]
    assert {"Customer", "Subscription", "Plan", "Metric", "Balance", "Invoice"} <= owners["custom_fields"]
    assert owners["labels"].isdisjoint(owners["custom_fields"])


def test_a_closed_set_is_an_enum() -> None:
    sounds_closed = {
        name for name, field in all_fields().items() if field.type == TEXT and field.name.rpartition("_")[2] in CLOSED
    }
    assert sounds_closed == OPEN_SETS


def test_the_same_name_has_the_same_type() -> None:
    for name, field in all_fields().items():
        if field.name in TYPES:
            assert field.type == TYPES[field.name], name


def test_group_values_are_selectors_everywhere() -> None:
    fields = [field for field in all_fields().values() if field.name == "group_values"]
    assert {field.message_type.name for field in fields if field.message_type is not None} == {"GroupSelector"}
