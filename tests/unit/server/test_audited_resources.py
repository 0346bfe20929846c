"""Resources as the audit log keeps them."""

from generated.tidemark.v1 import audit_entry_pb2, customer_pb2, endpoint_pb2
from server.mapping import audited_resources
from server.mapping.audited_resources import MAX_STATE_BYTES, changed, changed_fields, read_state
from store.audit import json_states
from store.audit.entries import ResourceType

CASES = {field.name: field for field in audit_entry_pb2.AuditedResource.DESCRIPTOR.fields}


def test_every_case_is_written_from_a_message_or_from_json() -> None:
    from_messages = {kind.field for kind in audited_resources._KINDS.values()}
    assert set(CASES) == from_messages | {"alert_exclusion", "api_key", "endpoint_secrets", "quotas"}
    for message, kind in audited_resources._KINDS.items():
        assert CASES[kind.field].message_type is message.DESCRIPTOR


def test_state_in_json_is_read_like_a_message() -> None:
    state = read_state(json_states.endpoint_disabled("whe_1", "GONE"))
    assert state.endpoint == endpoint_pb2.Endpoint(
        endpoint_id="whe_1",
        state=endpoint_pb2.ENDPOINT_STATE_DISABLED,
        disable_reason=endpoint_pb2.DISABLE_REASON_GONE,
    )


def test_state_of_a_later_version_is_read_without_the_fields_that_this_one_does_not_know() -> None:
    state = read_state(b'{"endpoint": {"endpointId": "whe_1", "later": 1}}')
    assert state.endpoint.endpoint_id == "whe_1"


def test_binary_state_never_begins_like_json() -> None:
    """A brace would be the start of a group, and every case is a message, which begins with its length."""
    assert ord("{") & 7 == 3
    for field in CASES.values():
        state = audit_entry_pb2.AuditedResource()
        getattr(state, field.name).SetInParent()
        assert state.SerializeToString()[0] & 7 == 2


def test_changed_fields_are_those_that_differ_but_not_the_times_of_each_change() -> None:
    before, after = (
        audit_entry_pb2.AuditedResource(customer=customer_pb2.Customer(display_name=name, plan_id=plan))
        for name, plan in (("A", "gold"), ("B", ""))
    )
    after.customer.update_time.seconds = 5
    assert changed_fields(before, after) == ["display_name", "plan_id"]
    assert changed_fields(None, after) == []
    assert changed_fields(before, before) == []


def test_large_state_keeps_its_short_fields() -> None:
    fields = {f"key{number}": "x" * 200 for number in range(100)}
    before = customer_pb2.Customer(customer_id="a", display_name="A", custom_fields=fields)
    after = customer_pb2.Customer(customer_id="a", display_name="y" * 300)
    assert before.ByteSize() > MAX_STATE_BYTES
    found = changed(before, after)
    assert (found.resource_type, found.resource_id, found.abridged) == (ResourceType.CUSTOMER, "a", True)
    assert found.hidden_fields == ("display_name", "custom_fields")
    assert found.before is not None
    assert found.after is not None
    assert read_state(found.before).customer == customer_pb2.Customer(customer_id="a", display_name="A")
    assert read_state(found.after).customer == customer_pb2.Customer(customer_id="a")
