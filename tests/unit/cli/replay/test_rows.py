"""Rows of CSV and NDJSON files, good and bad ones."""

from pathlib import Path

import pytest

from cli.replay.row_file import CSV, NDJSON, RowFile
from cli.replay.rows import BadRow, Row
from cli.replay.source import FileProblem


def read(
    path: Path, content: str | bytes, form: str | None = None, delimiter: str | None = None
) -> list[Row | BadRow]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with RowFile(path, None, delimiter) as rows:
        return [named(row, rows.columns) for row in rows]


def named(row: Row | BadRow, columns: list[str] | None) -> Row | BadRow:
    """The row with values by column, and without its text."""
    if isinstance(row, BadRow):
        return row
    values = row.values if columns is None else dict(zip(columns, row.values, strict=True))
    return Row(row.number, row.line, values)


def test_csv_rows_have_their_number_line_and_values(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv", 'id,note\n1,"two\nlines"\n\n2,x\n')
    assert rows == [
        Row(1, 3, {"id": "1", "note": "two\nlines"}),
        Row(2, 5, {"id": "2", "note": "x"}),
    ]


def test_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfid\n1\n")
    with RowFile(path) as rows:
        assert rows.columns == ["id"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1", "has 1 cells, but the header has 2"),
        ("1,2,3", "has 3 cells, but the header has 2"),
        ('1,"a"b', "is not CSV"),
    ],
)
def test_bad_csv_row_does_not_affect_other_rows(tmp_path: Path, line: str, reason: str) -> None:
    rows = read(tmp_path / "a.csv", f"a,b\n1,2\n{line}\n3,4\n")
    assert [type(row) for row in rows] == [Row, BadRow, Row]
    bad = rows[1]
    assert isinstance(bad, BadRow)
    assert bad.reason.startswith(reason)
    assert bad.line == 3
    assert rows[2] == Row(3, 4, {"a": "3", "b": "4"})


@pytest.mark.parametrize("name", ["a.csv", "a.ndjson"])
def test_bytes_that_are_not_utf8_affect_one_row_only(tmp_path: Path, name: str) -> None:
    content = b"a\nx\n\xff\ny\n" if name.endswith("csv") else b'{"a":"x"}\n{"a":"\xff"}\n{"a":"y"}\n'
    rows = read(tmp_path / name, content)
    assert isinstance(rows[1], BadRow)
    assert rows[1].reason == "is not UTF-8"
    assert [row.values for row in rows if isinstance(row, Row)] == [{"a": "x"}, {"a": "y"}]


def test_cells_are_separated_by_tabs_in_tsv_or_by_the_given_delimiter(tmp_path: Path) -> None:
    assert read(tmp_path / "a.tsv", "a\tb\n1\t2\n") == [Row(1, 2, {"a": "1", "b": "2"})]
    assert read(tmp_path / "a.csv", "a;b\n1;2\n", delimiter=";") == [Row(1, 2, {"a": "1", "b": "2"})]


def test_json_numbers_keep_their_digits(tmp_path: Path) -> None:
    text = '{"a": 0.1000000000000000055511151231257827, "b": 1e-05, "c": 12, "d": 1E+3, "e": -0.0}\n'
    (row,) = read(tmp_path / "a.ndjson", text)
    assert isinstance(row, Row)
    assert row.values == {
        "a": "0.1000000000000000055511151231257827",
        "b": "0.00001",
        "c": "12",
        "d": "1000",
        "e": "-0.0",
    }


def test_enormous_json_exponent_is_left_for_the_server_to_reject(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "a.ndjson", '{"a": 1e999999999}\n')
    assert isinstance(row, Row)
    assert row.values == {"a": "1e999999999"}


@pytest.mark.parametrize(
    ("line", "reason"), [("[1]", "is not a JSON object"), ("{", "is not JSON"), ("7", "is not a JSON object")]
)
def test_bad_json_line_does_not_affect_other_lines(tmp_path: Path, line: str, reason: str) -> None:
    rows = read(tmp_path / "a.ndjson", f'{{"a": "1"}}\n\n{line}\n{{"a": "2"}}\n')
    bad = rows[1]
    assert isinstance(bad, BadRow)
    assert bad.reason.startswith(reason)
    assert (bad.number, bad.line) == (2, 3)
    assert rows[2] == Row(3, 4, {"a": "2"})


@pytest.mark.parametrize(("content", "form"), [(' {"a": "1"}\n', NDJSON), ("a\n1\n", CSV)])
def test_format_is_guessed_from_the_content_when_the_name_has_no_suffix(
    tmp_path: Path, content: str, form: str
) -> None:
    path = tmp_path / "usage"
    path.write_text(content)
    with RowFile(path) as rows:
        assert rows.form == form
        assert [named(row, rows.columns) for row in rows] == [Row(1, 2 if form == CSV else 1, {"a": "1"})]


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "is empty"), ("a,b,a\n1,2,3\n", "more than one column named 'a'"), ('"a\n', "not CSV")],
)
def test_csv_file_without_a_usable_header_is_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(FileProblem, match=words):
        RowFile(path)


def test_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileProblem, match="cannot be read"):
        RowFile(tmp_path / "nothing.csv")


def test_position_reaches_the_size_at_the_end_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a\n" + "1\n" * 1000)
    with RowFile(path) as rows:
        assert rows.size is not None
        assert 0 < rows.position <= rows.size
        assert sum(1 for _ in rows) == 1000
        assert rows.position == rows.size
