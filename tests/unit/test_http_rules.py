"""Every method that HTTP can carry has a path; each path names fields of its request, and no two paths collide."""

import re
from itertools import combinations

import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor

from proto.documents.contract import METHODS, VERBS, Binding, behaviors, bindings
from proto.documents.http_paths import collide, field_at, is_list_of_messages, query_fields, variables

_TEMPLATE = re.compile(r"/v1(/([a-zA-Z]+|\{[a-z_.]+\}))+(:[a-zA-Z]+)?")
_SCALARS_IN_A_PATH = {FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_INT64}

CARRIED = [method for method in METHODS if not method.client_streaming]
BINDINGS = [(method, binding) for method in CARRIED for binding in bindings(method)]

# The verbs of AIP-131 to AIP-135, by the first word of a method. Other methods have a custom verb in their path.
# So has a further path of a method that reads: ":lookup" where the query names the resource, ":query" with a body.
STANDARD = {"Get": "get", "List": "get", "Create": "post", "Update": "patch", "Put": "put", "Delete": "delete"}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_method_has_an_http_path_unless_its_caller_streams(method: MethodDescriptor) -> None:
    assert bool(bindings(method)) == (not method.client_streaming)


@pytest.mark.parametrize(("method", "binding"), BINDINGS, ids=lambda each: getattr(each, "name", ""))
def test_path_is_of_this_version_and_names_fields_of_the_request(method: MethodDescriptor, binding: Binding) -> None:
    assert binding.verb in VERBS
    assert _TEMPLATE.fullmatch(binding.path)
    names = variables(binding.path)
    assert len(names) == len(set(names))
    for name in names:
        field = field_at(method.input_type, name)
        assert field is not None, name
        assert field.type in _SCALARS_IN_A_PATH, name
        assert not field.is_repeated, name


@pytest.mark.parametrize(("method", "binding"), BINDINGS, ids=lambda each: getattr(each, "name", ""))
def test_body_is_the_request_or_the_resource_in_it(method: MethodDescriptor, binding: Binding) -> None:
    if binding.verb in ("get", "delete"):
        assert binding.body == ""
    elif binding.body != "*":
        field = method.input_type.fields_by_name[binding.body]
        assert field.message_type is not None
        assert not field.is_repeated


@pytest.mark.parametrize(("method", "binding"), BINDINGS, ids=lambda each: getattr(each, "name", ""))
def test_query_has_only_fields_that_a_text_can_say(method: MethodDescriptor, binding: Binding) -> None:
    """A map of texts is written as labels[key]=value; a time, a duration and a mask are written as texts."""
    for field in query_fields(method, binding):
        message = field.message_type
        if message is None or message.GetOptions().map_entry:
            continue
        assert not field.is_repeated, field.full_name
        assert message.file.package == "google.protobuf", field.full_name


@pytest.mark.parametrize("method", CARRIED, ids=lambda method: method.name)
def test_list_of_messages_is_in_the_body_of_some_binding(method: MethodDescriptor) -> None:
    lists = [field for field in method.input_type.fields if is_list_of_messages(field)]
    assert not lists or any(binding.body == "*" for binding in bindings(method))


@pytest.mark.parametrize("method", CARRIED, ids=lambda method: method.name)
def test_no_binding_of_a_method_needs_only_what_another_needs(method: MethodDescriptor) -> None:
    needs = [(binding.verb, frozenset(variables(binding.path))) for binding in bindings(method)]
    assert len(set(needs)) == len(needs)


@pytest.mark.parametrize(("method", "binding"), BINDINGS, ids=lambda each: getattr(each, "name", ""))
def test_query_has_no_secrets(method: MethodDescriptor, binding: Binding) -> None:
    """Proxies log URLs."""
    for field in query_fields(method, binding):
        assert "INPUT_ONLY" not in behaviors(field), field.full_name


@pytest.mark.parametrize(("method", "binding"), BINDINGS, ids=lambda each: getattr(each, "name", ""))
def test_verb_is_that_of_the_standard_method_or_the_path_ends_in_a_custom_one(
    method: MethodDescriptor, binding: Binding
) -> None:
    word = re.match(r"[A-Z][a-z]+", method.name)
    assert word is not None
    expected = STANDARD.get(word[0])
    if expected is not None and binding == bindings(method)[0]:
        assert binding.verb == expected
        assert ":" not in binding.path
    elif expected is not None and ":" not in binding.path:
        assert binding.verb == expected
    elif expected is not None:
        assert re.search(r":(lookup|query)$", binding.path)
        assert expected == "get"
        assert binding.verb == ("post" if binding.body else "get")
    else:
        assert re.search(r":[a-z][a-zA-Z]+$", binding.path)
        assert binding.verb == ("post" if any_changes(method) or binding.body else "get")


def any_changes(method: MethodDescriptor) -> bool:
    """Whether a custom method changes something, by its name."""
    return re.match(r"BatchCheck|Check|Summarize|Watch|Count|Explain|Find|Search", method.name) is None


def test_no_two_paths_match_the_same_request() -> None:
    found = [
        (one.name, other.name)
        for (one, first), (other, second) in combinations(BINDINGS, 2)
        if collide(first, second)
    ]
    assert found == []


def test_update_alert_has_a_path_without_an_id_for_alerts_that_their_uniqueness_key_addresses() -> None:
    [update] = [method for method in METHODS if method.name == "UpdateAlert"]
    assert "/v1/alerts" in {binding.path for binding in bindings(update)}
