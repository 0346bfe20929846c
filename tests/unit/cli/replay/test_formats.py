"""Formats of files, as a dry run shows them: events, and rows that give none."""

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli.main import tidemark
from gateway.cloudevents.mapping import event_id

pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs the extra `replay`")
zstd = pytest.importorskip("backports.zstd", reason="zstd needs the extra `replay`, or Python 3.14")

CSV = "customer_id,metric_id,quantity,time\nacme,calls,{},2026-03-01T00:00:00Z\n"
TRACES = Path(__file__).resolve().parents[5] / "shared" / "data"  # beside the repository, where it is checked


def dry(path: Path, content: bytes | None, *options: str, code: int = 0) -> tuple[list[dict[str, Any]], str]:
    """The first events, and the rest of the output."""
    if content is not None:
        path.write_bytes(content)
    done = CliRunner().invoke(tidemark, ["replay", str(path), "--dry-run", *options])
    assert done.exit_code == code, done.output
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return events, done.output


def counts(path: Path, content: bytes | None, *options: str, code: int = 0) -> dict[str, Any]:
    """The summary for programs."""
    events, _ = dry(path, content, "--json", *options, code=code)
    return events[-1]


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_packed_members_are_one_content_whatever_the_name_says(tmp_path: Path, pack: Any) -> None:
    text = CSV.format(1).encode()
    content = pack(text) + pack(b"acme,calls,2,2026-03-01T00:00:00Z\n")
    events, _ = dry(tmp_path / "usage.csv", content)
    assert [event["quantity"] for event in events] == ["1", "2"]


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_of_a_truncated_file_the_complete_rows_are_read(tmp_path: Path, pack: Any) -> None:
    text = CSV.format(1) + "".join(f"acme,calls,{number},2026-03-01T00:00:00Z\n" for number in range(20_000))
    content = pack(text.encode())
    found = counts(tmp_path / "usage.csv", content[: len(content) * 2 // 3])
    assert 1_000 < found["would_send"] == found["rows"] < 20_000
    assert found["rejected"] == 0


def test_a_json_array_gives_its_objects_also_beside_a_bad_one(tmp_path: Path) -> None:
    row = {"event_id": "a", "customer_id": "acme", "metric_id": "calls", "quantity": 0.1, "time": 1772359200}
    good = [json.dumps({**row, "event_id": str(number)}, indent=number) for number in range(3)]
    text = "[" + ", ".join([good[0], '{"event_id": "bad", ', *good[1:]]) + "]"
    _, said = dry(tmp_path / "usage", text.encode(), code=3)
    assert "3  events, of which none was sent" in said
    events, _ = dry(tmp_path / "usage.json", json.dumps([row] * 2).encode())
    assert [event["quantity"] for event in events] == ["0.1", "0.1"]


def cloud_event(number: int, **changes: Any) -> dict[str, Any]:
    event = {
        "specversion": "1.0", "id": f"e{number}", "source": "/checkout", "subject": "acme", "type": "orders",
        "time": "2026-03-01T00:00:00Z", "data": {"quantity": 2, "cost": "1.50", "currency": "EUR", "country": "DE"},
    }  # fmt: skip
    return event | changes


@pytest.mark.parametrize("as_array", [True, False])
def test_cloud_events_are_mapped_as_the_http_port_maps_them(tmp_path: Path, as_array: bool) -> None:
    given = [cloud_event(1), cloud_event(2, time=None), cloud_event(3, specversion="0.3"), cloud_event(4)]
    text = json.dumps(given) if as_array else "\n".join(map(json.dumps, given))
    events, said = dry(tmp_path / "events", text.encode(), code=3)
    assert events[0] == {
        "event_id": event_id("/checkout", "e1"), "customer_id": "acme", "metric_id": "orders", "quantity": "2",
        "cost": "1.50", "currency": "EUR", "event_time": "2026-03-01T00:00:00Z", "properties": {"country": "DE"},
    }  # fmt: skip
    assert len(events) == 2
    assert 'specversion: it must be "1.0"' in said
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"rules": [{"customer_id": {"value": "globex"}}]}))
    events, _ = dry(tmp_path / "events", None, "--cloudevents-mapping", str(rules), code=3)
    assert {event["customer_id"] for event in events} == {"globex"}
    dry(tmp_path / "events", None, "--customer", "x", code=2)


def test_parquet_has_exact_decimals_zones_dictionaries_and_nested_columns(tmp_path: Path) -> None:
    import pyarrow.parquet

    time = datetime(2026, 3, 1, 12)  # noqa: DTZ001  # without a zone
    table = pyarrow.table(
        {
            "account": pyarrow.array([{"id": "acme"}, {"id": "globex"}, None, {"id": "acme"}]),
            "metric_id": pyarrow.array(["calls", "calls", "calls", None]).dictionary_encode(),
            "quantity": pyarrow.array([Decimal("0.000000001"), Decimal(7), Decimal(1), Decimal(2)],
                                      pyarrow.decimal128(38, 9)),
            "time": pyarrow.array([time] * 4, pyarrow.timestamp("ns")),
            "cost": pyarrow.array([0.1, None, 1.0, 1e-7]),
            "properties": pyarrow.array([[("region", "eu")], [], None, []], pyarrow.map_(pyarrow.string(),
                                                                                         pyarrow.string())),
            "zoned": pyarrow.array([time.replace(tzinfo=UTC)] * 4, pyarrow.timestamp("ms", "Asia/Tokyo")),
        }
    )  # fmt: skip
    path = tmp_path / "usage"
    pyarrow.parquet.write_table(table, path, row_group_size=2)
    mapped = ("--customer", "account.id", "--time-zone", "Europe/Berlin")
    events, said = dry(path, None, *mapped, code=3)
    assert [(event["customer_id"], event["quantity"], event.get("cost")) for event in events] == [
        ("acme", "0.000000001", "0.1"),
        ("globex", "7.000000000", None),
    ]
    assert events[0]["properties"] == {"region": "eu"}
    assert {event["event_time"] for event in events} == {"2026-03-01T11:00:00Z"}
    assert "customer_id is empty" in said
    assert "metric_id is empty" in said
    events, _ = dry(path, None, *mapped, "--time", "zoned", code=3)
    assert {event["event_time"] for event in events} == {"2026-03-01T12:00:00Z"}


FOCUS = (
    "BilledCost,BillingAccountId,BillingCurrency,ChargeCategory,ChargeClass,ChargePeriodStart,ConsumedQuantity,"
    "ConsumedUnit,EffectiveCost,RegionId,ServiceName,SubAccountId\n"
    "1.25,b1,USD,Usage,,2026-03-01T00:00:00Z,10,Hours,1.00,eu,Compute,s1\n"
    "-0.25,b1,USD,Usage,Correction,2026-02-01T00:00:00Z,-2,Hours,-0.20,eu,Compute,s1\n"
    "100,b1,USD,Purchase,,2026-03-01T00:00:00Z,,,0,,Support,\n"
    "-50,b1,USD,Credit,,2026-03-01T00:00:00Z,,,-50,,Compute,s1\n"
    "19,b1,USD,Tax,,2026-03-01T00:00:00Z,,,19,,Compute,s1\n"
)


def test_a_focus_export_is_mapped_by_the_names_of_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "focus.csv"
    events, said = dry(path, FOCUS.encode())
    shown = [(one["customer_id"], one["metric_id"], one["quantity"], one["cost"]) for one in events]
    assert shown == [
        ("s1", "Compute", "10", "1.25"),
        ("s1", "Compute", "-2", "-0.25"),
        ("b1", "Support", "0", "100"),
    ]
    assert events[0]["properties"] == {
        "charge_category": "Usage", "consumed_unit": "Hours", "region": "eu", "service": "Compute",
    }  # fmt: skip
    assert "skipped 1: ChargeCategory is 'Credit'" in said
    events, _ = dry(path, None, "--charges", "all", "--cost", "EffectiveCost", "--customer", "BillingAccountId")
    assert [one["cost"] for one in events] == ["1.00", "-0.20", "0", "-50", "19"]
    assert {one["customer_id"] for one in events} == {"b1"}
    dry(path, None, "--preset", "none", code=2)


def test_numbers_with_a_decimal_comma_are_read_where_they_are_certain(tmp_path: Path) -> None:
    text = "customer_id;metric_id;quantity;time\nacme;calls;{};2026-03-01 12:00:00\n"
    events, said = dry(tmp_path / "usage.csv", text.format("1.234,5").encode())
    assert events[0]["quantity"] == "1234.5"
    assert "decimal comma and thousands with points" in said
    _, said = dry(tmp_path / "usage.csv", text.format("1.234").encode(), code=2)
    assert "--decimal" in said
    events, _ = dry(tmp_path / "usage.csv", None, "--decimal", ",", "--thousands", ".")
    assert events[0]["quantity"] == "1234"


def test_an_ambiguous_number_after_the_first_rows_rejects_its_row_alone(tmp_path: Path) -> None:
    text = CSV.format("1.5") + 'acme,calls,"2,500",2026-03-01T00:00:00Z\nacme,calls,3,2026-03-01T00:00:00Z\n' * 300
    found = counts(tmp_path / "usage.csv", text.encode(), "--decimal", ".", code=3)
    assert (found["would_send"], found["rejected"]) == (301, 300)


def test_a_summary_says_how_times_were_read(tmp_path: Path) -> None:
    text = CSV.format(1) + "acme,calls,1,1772359200\nacme,calls,1,1772359200000\nacme,calls,1,2026-03-01 00:00:00\n"
    found = counts(tmp_path / "usage.csv", text.encode())
    assert found["times"] == {"with a zone": 1, "without a zone": 1, "seconds": 1, "milliseconds": 1}
    assert (found["first_event_time"], found["last_event_time"]) == ("2026-03-01T00:00:00Z", "2026-03-01T10:00:00Z")


@pytest.mark.parametrize("name", ["code", "conv"])
def test_real_traces_are_read_without_a_rejected_row(name: str, tmp_path: Path) -> None:
    path = TRACES / f"azure_llm_inference_trace_2023_{name}.csv"
    if not path.exists():
        pytest.skip("the traces are not on this machine")
    mapped = ("--customer", "=acme", "--metric", "=tokens", "--quantity", "ContextTokens", "--time", "TIMESTAMP")
    found = counts(path, None, *mapped)
    assert found["would_send"] == {"code": 8_819, "conv": 19_366}[name]
    assert found["first_event_time"].startswith("2023-11-16T18:1")
