"""The documents that are made from the contract: complete, valid, and with links that lead somewhere."""

import json
from functools import cache
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from openapi_spec_validator import validate

from proto.documents.contract import FILES, METHODS, ROOT, bindings, comments
from proto.documents.error_reasons import documented_reasons
from proto.documents.http_paths import json_path
from proto.documents.openapi import openapi

document = cache(openapi)


def references(value: Any) -> set[str]:
    """Every $ref below a value."""
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set[str]().union(*map(references, value)) if isinstance(value, list) else set()


def test_openapi_is_committed_as_it_is_made() -> None:
    assert json.loads((ROOT / "docs" / "openapi.json").read_text()) == document()


def test_openapi_is_valid() -> None:
    validate(document())


def test_references_of_openapi_have_targets() -> None:
    found = references(document())
    assert len(found) > 100
    for reference in found:
        value: Any = document()
        for part in reference.removeprefix("#/").split("/"):
            value = value[part]
        assert value


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_openapi_has_every_binding_of_a_method_with_its_path_parameters(method: MethodDescriptor) -> None:
    for binding in bindings(method):
        operation = document()["paths"][json_path(binding.path)][binding.verb]
        assert operation["tags"] == [method.containing_service.name]
        assert operation["description"]
        named = {each["name"] for each in operation["parameters"] if each["in"] == "path"}
        assert named == {
            part.strip("{}").partition("}")[0] for part in json_path(binding.path).split("/") if "{" in part
        }


def test_operations_of_openapi_have_ids_of_their_own() -> None:
    ids = [operation["operationId"] for path in document()["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids)) >= len(METHODS) - 1


def test_schema_lists_its_required_fields_and_marks_what_only_answers_have() -> None:
    alert = document()["components"]["schemas"]["Alert"]
    assert "scope" in alert["required"]
    assert alert["properties"]["alertId"]["readOnly"]
    assert "readOnly" not in alert["properties"]["scope"]


def test_everything_that_the_contract_declares_has_a_comment() -> None:
    for file in FILES:
        for message in file.message_types_by_name.values():
            names = [message.full_name, *(field.full_name for field in message.fields)]
            assert [name for name in names if name not in comments()] == []


def test_every_error_reason_is_documented_with_code_and_example() -> None:
    found = documented_reasons()
    assert len({reason.name for reason in found}) == len(found) > 50
    assert all(reason.text for reason in found)
