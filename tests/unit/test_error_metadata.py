"""Every error reason is sent, with the code and the metadata that its comment in the contract names, and no other."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from generated.tidemark.v1 import error_reason_pb2
from proto.documents.error_reasons import DocumentedReason, documented_reasons
from server.calls import errors

ROOT = Path(__file__).resolve().parents[2]
REASONS = documented_reasons()

# Where a key is computed, what the code can send. Everything else is read from the code.
COMPUTED = {
    "ERROR_REASON_BALANCES_INSUFFICIENT": {"currency", "metric_id"},
    "ERROR_REASON_CUSTOMER_NAME_TAKEN": {"external_id", "alias"},
    "ERROR_REASON_CUSTOMER_NOT_FOUND": {"customer_id", "external_id", "alias"},
    "ERROR_REASON_ADJUSTMENT_CONFLICT": {"balance_id"},
    "ERROR_REASON_IN_USE": {"metric_id", "plan_id", "customer_id", "subscription_id", "used_by_id"},
    "ERROR_REASON_SUBSCRIPTION_NOT_FOUND": {"customer_id"},
}


@cache
def constructions() -> list[tuple[str, ast.Call]]:
    """Each call under server/ that has a reason as its first argument."""
    found = []
    for path in sorted((ROOT / "server").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            first = node.args[0]
            if isinstance(first, ast.Attribute) and first.attr.startswith("ERROR_REASON_"):
                found.append((first.attr, node))
    return found


def keys_of(call: ast.Call) -> tuple[set[str], bool]:
    """The metadata keys that a call names, and whether it computes further ones."""
    found = next((keyword.value for keyword in call.keywords if keyword.arg == "metadata"), None)
    if found is None:
        return set(), False
    if not isinstance(found, ast.Dict):
        return set(), True
    named = {key.value for key in found.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    return named, len(named) < len(found.keys)


@cache
def sent() -> dict[str, set[str]]:
    """Of each reason that the code sends, the metadata keys."""
    by_reason: dict[str, set[str]] = {}
    for reason, call in constructions():
        by_reason.setdefault(reason, set()).update(keys_of(call)[0])
    return {reason: keys | COMPUTED.get(reason, set()) for reason, keys in by_reason.items()}


def test_reasons_with_computed_keys_are_known() -> None:
    assert {reason for reason, call in constructions() if keys_of(call)[1]} == set(COMPUTED)


def test_every_reason_is_sent_and_every_sent_one_documented() -> None:
    assert set(sent()) == {reason.name for reason in REASONS}


def test_sent_codes_are_documented() -> None:
    documented = {reason.name: reason.code for reason in REASONS}
    for reason, call in constructions():
        name = call.func.attr if isinstance(call.func, ast.Attribute) else ast.unparse(call.func)
        assert getattr(errors, name).code.name == documented[reason], reason


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_documented_metadata_is_sent(reason: DocumentedReason) -> None:
    assert set(reason.metadata) <= sent()[reason.name]


@pytest.mark.parametrize("reason", REASONS, ids=lambda reason: reason.name)
def test_sent_metadata_is_in_the_example_or_named_in_the_comment(reason: DocumentedReason) -> None:
    named = set(re.findall(r"\w+", reason.text))
    assert sent()[reason.name] - set(reason.metadata) <= named


def test_numbers_of_reasons_have_no_gaps() -> None:
    values = error_reason_pb2.ErrorReason.values()
    assert sorted(values) == list(range(len(values)))
