"""A limit of a request to its subject, unit and amount, or to all its violations."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from google.protobuf import text_format

from generated.tidemark.v1 import (
    limit_pb2,
)
from server.calls.validation import Violations
from server.mapping.plans import limit_message, read_amount, read_subject
from store.limits.limits import LimitSubject, StoredLimit

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
ACME = 'customer { customer_id: "acme" } '
USD = 'spend { currency: "USD" } '


def read(text: str) -> tuple[LimitSubject, list[str]]:
    """The subject of a limit in protobuf's text format, and the paths of its violations."""
    violations = Violations()
    subject = read_subject(violations, "limit", text_format.Parse(text, limit_pb2.Limit()))
    return subject, [violation.path.removeprefix("limit.") for violation in violations.found]


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        (ACME + USD, LimitSubject("acme", None, "USD", None, ())),
        (
            'plan { plan_id: "pro" } quantity { metric_id: "tokens" }',
            LimitSubject(None, "pro", None, "tokens", ()),
        ),
        (
            ACME + USD + 'groups { key: "user" } groups { key: "model" value: "" } groups { key: "a" value: " x " }',
            LimitSubject("acme", None, "USD", None, (("a", " x "), ("model", ""), ("user", None))),
        ),
    ],
)
def test_a_limit_reads_its_subject_and_unit(text: str, subject: LimitSubject) -> None:
    assert read(text) == (subject, [])
    shown = limit_message(StoredLimit(1, "l1", subject, Decimal("1.50"), NOW, NOW, NOW))
    assert shown.amount == "1.5"
    assert read_subject(Violations(), "limit", shown) == subject


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("", ["holder", "access"]),
        ("customer {} spend {}", ["customer.customer_id", "spend.currency"]),
        ("plan {} quantity {}", ["plan.plan_id", "quantity.metric_id"]),
        (ACME + 'spend { currency: "usd" }', ["spend.currency"]),
        (ACME + USD + "groups {}", ["groups[0].key"]),
        (ACME + USD + 'groups { key: "a" } groups { key: "a" value: "b" }', ["groups[1].key"]),
        (ACME + USD + r'groups { key: "a" value: "\n" }', ["groups[0].value"]),
        (ACME + USD + 'groups { key: "a" value: "' + "x" * 257 + '" }', ["groups[0].value"]),
        (ACME + USD + "groups {} groups {} groups {} groups {}", ["groups"]),
    ],
)
def test_an_invalid_limit_is_refused_by_field(text: str, paths: list[str]) -> None:
    assert read(text)[1] == paths


@pytest.mark.parametrize(
    ("text", "amount", "wrong"),
    [
        ("", None, False),
        ("0", Decimal(0), False),
        ("10.000000000000000001", Decimal("10.000000000000000001"), False),
        ("-1", Decimal(-1), True),
        ("1e3", Decimal(0), True),
    ],
)
def test_a_limit_reads_its_amount(text: str, amount: Decimal | None, wrong: bool) -> None:
    violations = Violations()
    assert read_amount(violations, "amount", text) == amount
    assert bool(violations.found) == wrong
