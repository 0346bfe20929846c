"""Files with corrupted rows: a corrupted row does not affect other rows."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.replay.batches import Batches
from cli.replay.compiled import compiled
from cli.replay.csv_rows import MAX_CELL_LINES
from cli.replay.lines import MAX_LINE_LENGTH
from cli.replay.mapping import RowMapping
from cli.replay.numbers import NumberForm
from cli.replay.row_file import CSV, RowFile
from cli.replay.rows import BadRow, Row
from cli.replay.summary import Summary
from cli.replay.times import TimeReader
from generated.tidemark.v1.usage_pb2 import UsageEvent

HEADER = ["event_id", "customer_id", "metric_id", "quantity", "time", "properties.note"]
NOTES = ("plain", "", "with, a comma", 'said "so"', '"', "ümlaut €", ";", " blank ")
TIME = "2026-03-01T00:00:00Z"

# How a row is corrupted, given the bytes of its line without the line end, which stays in its place.
CORRUPTIONS = {
    "no UTF-8": lambda line, at: line[:at] + b"\xff\xfe" + line[at:],
    "zero bytes": lambda line, at: line[:at] + b"\0\0" + line[at:],
    "a cell too many": lambda line, at: line + b",more",
    "a cell too few": lambda line, at: line.rpartition(b",")[0],
    "a stray quote": lambda line, at: line[:at] + b'"' + line[at:],
    "a quote at the front": lambda line, at: b'"' + line,
    "a quote at the end": lambda line, at: line + b'"',
    "cut off": lambda line, at: line[: max(1, at)],
    "a control character": lambda line, at: line[:at] + b"\x07" + line[at:],
}
BREAKS = (b"\n", b"\r\n", b"\r")


def encoded(cells: list[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue().removesuffix("\r\n").encode()


def named(row: Row | BadRow, columns: list[str] | None) -> Row | BadRow:
    """The row with values by column."""
    if isinstance(row, Row) and columns is not None:
        row.values = dict(zip(columns, row.values, strict=True))
    return row


def read(content: bytes, name: str = "a.csv", max_line_length: int = MAX_LINE_LENGTH) -> list[Row | BadRow]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        with RowFile(path, max_line_length=max_line_length) as rows:
            return [named(row, rows.columns) for row in rows]


def ids(found: list[Row | BadRow]) -> set[str]:
    return {str(values(row)["event_id"]) for row in found if isinstance(row, Row)}


def values(row: Row) -> Mapping[str, Any]:
    assert isinstance(row.values, Mapping)
    return row.values


rows_of_a_file = st.lists(st.sampled_from(NOTES), min_size=1, max_size=30)
corruption = st.tuples(st.integers(0, 29), st.sampled_from(sorted(CORRUPTIONS)), st.integers(0, 60))


@given(
    notes=rows_of_a_file, spoiled=st.lists(corruption, max_size=6), end=st.sampled_from(BREAKS), mark=st.booleans()
)
def test_corrupted_row_does_not_affect_other_rows(
    notes: list[str], spoiled: list[tuple[int, str, int]], end: bytes, mark: bool
) -> None:
    content = [encoded([f"e{number}", "acme", "calls", "1", TIME, note]) for number, note in enumerate(notes)]
    touched = set()
    for place, how, at in spoiled:
        number = place % len(content)
        touched.add(f"e{number}")
        content[number] = CORRUPTIONS[how](content[number], min(at, len(content[number])))
    start = b"\xef\xbb\xbf" if mark else b""
    found = read(start + end.join([encoded(HEADER), *content, b""]))
    assert {f"e{number}" for number in range(len(notes))} - ids(found) <= touched
    # Only corrupted rows are bad rows.
    assert sum(isinstance(row, BadRow) for row in found) <= len(touched)


@given(
    notes=st.lists(st.sampled_from([*NOTES, "two\nlines", "\n", "a\n\nb", "three\r\nwhole\nlines,"]), max_size=15),
    spoiled=st.one_of(st.none(), corruption),
)
def test_cells_of_several_lines_stay_whole_next_to_a_corrupted_row(
    notes: list[str], spoiled: tuple[int, str, int] | None
) -> None:
    content = [encoded([f"e{number}", "acme", "calls", "1", TIME, note]) for number, note in enumerate(notes)]
    if spoiled is not None:
        number = spoiled[0] % (len(content) + 1)
        line = encoded(["bad", "a", "b", "1", TIME, "x"])
        content.insert(number, CORRUPTIONS[spoiled[1]](line, min(spoiled[2], 30)))
    found = read(b"\n".join([encoded(HEADER), *content, b""]))
    good = {values(row)["event_id"]: values(row)["properties.note"] for row in found if isinstance(row, Row)}
    for number, note in enumerate(notes):
        assert good[f"e{number}"] == note


def test_stray_quote_affects_its_own_row_only() -> None:
    content = [encoded([f"e{number}", "acme", "calls", "1", TIME, "x"]) for number in range(3000)]
    content[9] = content[9].replace(b",x", b',"x')
    found = read(b"\n".join([encoded(HEADER), *content]))
    assert [(row.number, row.line, row.reason) for row in found if isinstance(row, BadRow)] == [
        (10, 11, "is not CSV: a quote opens a cell and is not closed in its row")
    ]
    assert len(found) == 3000


def test_rows_between_two_stray_quotes_do_not_become_one_cell() -> None:
    content = [encoded([f"e{number}", "acme", "calls", "1", TIME, "x"]) for number in range(20)]
    content[3] = content[3].replace(b",x", b',"x')
    content[9] = content[9] + b'"'
    assert ids(read(b"\n".join([encoded(HEADER), *content]))) >= {f"e{number}" for number in range(20)} - {"e3", "e9"}


@pytest.mark.parametrize("length", [MAX_CELL_LINES, MAX_CELL_LINES + 1])
def test_cell_may_span_a_limited_number_of_lines(length: int) -> None:
    note = "\n".join(["line"] * length)
    found = read(b"\n".join([encoded(HEADER), encoded(["e1", "a", "b", "1", TIME, note]), encoded(["e2"] * 6)]))
    assert ids(found) == ({"e1", "e2"} if length <= MAX_CELL_LINES else {"e2"})


@pytest.mark.parametrize("name", ["a.csv", "a.ndjson"])
def test_line_that_is_too_long_becomes_a_bad_row(name: str) -> None:
    long = "x" * 350
    text = (
        f'event_id\n1\n{long}\n"{long}"\n2\n'
        if name == "a.csv"
        else f'{{"event_id": "1"}}\n{{"a": "{long}"}}\n{{"event_id": "2"}}\n'
    )
    found = read(text.encode(), name, max_line_length=100)
    assert ids(found) == {"1", "2"}
    assert all(row.reason == "is longer than 100 characters" for row in found if isinstance(row, BadRow))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (r'{"event_id": "\ud800"}', "surrogate"),
        (r'{"event_id": "x", "properties": {"\udfff": "a"}}', "surrogate"),
        ('{"event_id": "x", "event_id": "y"}', "has the key 'event_id' twice"),
        ('{"event_id": ' + "[" * 100_000, "nested too deeply"),
        ('{"event_id": NaN', "not JSON"),
        ("\0", "not JSON"),
        ("null", "not a JSON object"),
    ],
)
def test_bad_ndjson_row_does_not_affect_other_rows(line: str, reason: str) -> None:
    found = read(f'{{"event_id": "1"}}\n{line}\n{{"event_id": "2"}}\n'.encode(), "a.ndjson")
    assert ids(found) == {"1", "2"}
    (bad,) = (row for row in found if isinstance(row, BadRow))
    assert reason in bad.reason
    assert bad.line == 2


def test_numbers_beyond_all_limits_are_left_for_the_server_to_reject() -> None:
    huge = "9" * 5000
    found = read(f'{{"a": 1e99999999999999999999, "b": {huge}, "c": -Infinity}}\n'.encode(), "a.ndjson")
    assert isinstance(found[0], Row)
    assert found[0].values == {"a": "1e99999999999999999999", "b": huge, "c": "-Infinity"}


async def events(content: bytes, name: str) -> tuple[list[tuple[str, str]], Summary]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        summary = Summary()
        with RowFile(path) as rows:
            numbers = NumberForm().reader()
            is_csv = rows.form == CSV
            to_event = compiled(RowMapping(), rows.columns, numbers, TimeReader(), are_texts=is_csv)
            reader = Batches(rows, to_event, 2)
            batches = [batch async for batch in reader]
        for batch in (*batches, reader.tail):
            summary.settle(batch)
        found = [UsageEvent.FromString(content) for batch in batches for content in batch.events]
        return [(event.event_id, event.quantity) for event in found], summary


async def test_batches_contain_all_other_rows_when_some_rows_give_no_event() -> None:
    base = {"customer_id": "acme", "metric_id": "calls", "quantity": "1", "time": TIME}
    given: list[dict[str, object]] = [
        {"event_id": "1"},
        {"event_id": "time", "time": "1e999999"},
        {"event_id": "nested", "quantity": {"a": [1]}},
        {"event_id": "large", "properties": {"x": "y" * (1 << 20)}},
        {"event_id": "2", "quantity": "1e-05"},
        {"event_id": "zero", "customer_id": "a\0b"},
    ]
    content = "\n".join(json.dumps({**base, **row}) for row in given).encode()
    found, summary = await events(content, "a.ndjson")
    assert found == [("1", "1"), ("2", "0.00001"), ("zero", "1")]
    assert (summary.rows, summary.rejected) == (6, 3)


async def test_exponent_in_a_cell_is_expanded_exactly_and_only_in_amounts() -> None:
    line = f"1e5,acme,calls,-1.5E+3,{TIME},1e5"
    found, _ = await events(",".join(HEADER).encode() + b"\n" + line.encode(), "a.csv")
    assert found == [("1e5", "-1500")]


async def test_rows_with_an_unreadable_time_are_counted_together_and_the_first_is_quoted() -> None:
    lines = [f"e{number},acme,calls,1,tomorrow {number}\x1b{'x' * 500},n" for number in range(5)]
    _, summary = await events("\n".join([",".join(HEADER), *lines]).encode(), "a.csv")
    ((_, group),) = summary.rejection_groups.items()
    assert (group.count, group.lines) == (5, [2, 3, 4, 5, 6])
    assert group.message.startswith("event_time is not a time: 'tomorrow 0\\x1bxxx")
    assert len(group.message) < 120
