"""An invoice of a request to the fact, or to all its violations."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from google.protobuf import text_format

from evaluator.invoices import InvoiceStatus
from generated.tidemark.v1 import invoice_pb2
from server.calls.validation import Violations
from server.mapping.invoices import read_invoice, read_statuses
from store.accounts.invoices import InvoiceFact

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)

IDS = 'customer_id: "acme" invoice_id: "i1" '
STATUS = "status: INVOICE_STATUS_PAID "
MONEY = 'currency: "USD" total: "10" '
END = "period_end_time { seconds: 9 } "
RIGHT = IDS + STATUS + MONEY + END


def read(text: str) -> tuple[InvoiceFact, list[str]]:
    """The fact of an invoice in protobuf's text format, and the paths of its violations."""
    violations = Violations()
    fact = read_invoice(violations, "invoice", text_format.Parse(text, invoice_pb2.Invoice()), NOW)
    return fact, [violation.path.removeprefix("invoice.") for violation in violations.found]


def test_an_invoice_gets_defaults() -> None:
    fact = InvoiceFact(
        customer_id="acme",
        invoice_id="i1",
        invoice_type=None,
        status=InvoiceStatus.PAID,
        currency="USD",
        total=Decimal(10),
        period_start_time=None,
        period_end_time=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=9),
        custom_fields={},
        contract_custom_fields={},
        as_of_time=NOW,
    )
    assert read(RIGHT) == (fact, [])


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("", ["customer_id", "invoice_id", "status", "currency", "total", "period_end_time"]),
        (STATUS + MONEY + END + 'customer_id: " " invoice_id: "\\000"', ["customer_id", "invoice_id"]),
        (RIGHT + 'type: "' + "x" * 129 + '"', ["type"]),
        (IDS + MONEY + END + "status: 5", ["status"]),
        (IDS + STATUS + END + 'currency: "eur" total: "1"', ["currency"]),
        (IDS + STATUS + END + 'currency: "a b" total: "1"', ["currency"]),
        (IDS + STATUS + END + 'currency: "EUR" total: "+1"', ["total"]),
        (IDS + STATUS + END + 'currency: "EUR" total: "1."', ["total"]),
        (IDS + STATUS + END + 'currency: "EUR" total: "NaN"', ["total"]),
        (IDS + STATUS + END + 'currency: "EUR" total: "0.' + "1" * 19 + '"', ["total"]),
        (IDS + STATUS + END + 'currency: "EUR" total: "' + "1" * 39 + '"', ["total"]),
        (RIGHT + "period_start_time { seconds: 9 }", ["period_end_time"]),
        (RIGHT + "period_start_time { nanos: -1 }", ["period_start_time"]),
        (IDS + STATUS + MONEY + "period_end_time { seconds: 999999999999 }", ["period_end_time"]),
        (RIGHT + 'custom_fields { key: " " value: "" }', ["custom_fields"]),
        (RIGHT + 'contract_custom_fields { key: "k" value: "' + "x" * 257 + '" }', ["contract_custom_fields['k']"]),
        (RIGHT + "as_of_time { seconds: 9999999999 }", ["as_of_time"]),
    ],
)
def test_an_invalid_invoice_is_refused_by_field(text: str, paths: list[str]) -> None:
    assert read(text)[1] == paths


def test_a_list_filter_reads_statuses() -> None:
    paid, draft = invoice_pb2.INVOICE_STATUS_PAID, invoice_pb2.INVOICE_STATUS_DRAFT
    violations = Violations()
    assert read_statuses(violations, "statuses", [paid, draft, paid]) == (InvoiceStatus.DRAFT, InvoiceStatus.PAID)
    assert not violations.found
    read_statuses(violations, "statuses", [paid, invoice_pb2.INVOICE_STATUS_UNSPECIFIED])
    assert [violation.path for violation in violations.found] == ["statuses[1]"]
