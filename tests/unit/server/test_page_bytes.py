"""Every list of the API ends a page before it is larger than a client accepts."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import server
from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    limit_service_pb2,
    webhook_service_pb2,
)

ROOT = Path(server.__file__).parent


def list_handlers() -> Iterator[tuple[str, ast.AsyncFunctionDef]]:
    """The handlers that return pages, by name."""
    sources = [path.read_text() for path in sorted(ROOT.rglob("*.py"))]
    for source in sources:
        if "read_page" not in source:  # most modules: to parse all of them takes half a second
            continue
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.AsyncFunctionDef) and "read_page" in called(node):
                yield node.name, node


def called(node: ast.AST) -> set[str]:
    """The names of the functions and methods that are called below a node."""
    calls = [one.func for one in ast.walk(node) if isinstance(one, ast.Call)]
    return {one.attr for one in calls if isinstance(one, ast.Attribute)} | {
        one.id for one in calls if isinstance(one, ast.Name)
    }


HANDLERS = dict(list_handlers())


@pytest.mark.parametrize("name", HANDLERS)
def test_a_list_ends_its_page_before_the_size_limit(name: str) -> None:
    assert "cut_into" in called(HANDLERS[name]), f"{name} returns pages of any size: cut them with Page.cut_into"


def test_every_list_of_the_contract_is_tested() -> None:
    modules = (account_service_pb2, alert_service_pb2, audit_service_pb2, limit_service_pb2, webhook_service_pb2)
    methods = {
        method.name
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    lists = {name for name in methods if name.startswith("List")}
    assert len(lists) > 15
    assert lists == {name for name in HANDLERS if not name.startswith("_")}
