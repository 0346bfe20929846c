"""CSV dialects: what separates and encloses cells, and how numbers are written, found in the file or asked for."""

import csv
import io
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.replay.dialects import NO_QUOTE, Dialect, sniff
from cli.replay.numbers import COMMA, POINT, AmbiguousNumbers, BadNumber, NumberForm, form_of
from cli.replay.row_file import RowFile
from cli.replay.rows import Row
from cli.replay.source import FileProblem

WANTED = (("customer_id",), ("quantity",))
# What a cell may have: no control characters but line ends within quotes, which CSV encloses.
TEXTS = st.text(st.characters(exclude_categories=["C"], include_characters="\n"), max_size=12)


@given(
    rows=st.lists(st.lists(TEXTS, min_size=4, max_size=4), max_size=8),
    delimiter=st.sampled_from(",;\t|"),
    quote=st.sampled_from("\"'"),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_a_written_file_is_read_as_it_was(
    rows: list[list[str]], delimiter: str, quote: str, end: str, encoding: str
) -> None:
    header = ["customer_id", "quantity", "a b", "note"]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quotechar=quote, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([header, *rows])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "usage"
        path.write_bytes(out.getvalue().encode(encoding))
        with RowFile(path, wanted=WANTED) as file:
            found = list(file)
        assert file.columns == header
    # A cell whose lines look like rows is rejected with its row: that is what a stray quote makes.
    plain = [row for row in rows if not any("\n" in cell for cell in row)]
    if len(plain) == len(rows):
        assert [row.values for row in found if isinstance(row, Row)] == rows


@pytest.mark.parametrize(
    ("lines", "dialect"),
    [
        (["customer_id;quantity", "acme;1,5"], Dialect(";", '"')),
        (["customer_id\tquantity", "acme\t1"], Dialect("\t", '"')),
        (["customer_id|quantity"], Dialect("|", '"')),
        (["customer_id", "acme"], Dialect(",", '"')),
        # The columns that are looked for decide, and then the rows.
        (["customer_id,a;quantity,b", "x,y;1,z"], Dialect(",", '"')),
        (["customer_id;quantity;note, or nothing", "acme;1;x", "acme;2;y"], Dialect(";", '"')),
        (["'customer_id','quantity'", "'a','1'"], Dialect(",", "'")),
        (["'customer_id';\"quantity\"", "'a';1"], Dialect(";", '"')),
    ],
)
def test_the_dialect_is_found(lines: list[str], dialect: Dialect) -> None:
    assert sniff([f"{line}\n" for line in lines], "usage.csv", None, None, WANTED) == dialect


def test_an_option_is_not_guessed_again() -> None:
    assert sniff(["a;b\n"], "f", ",", NO_QUOTE) == Dialect(",", "")
    assert Dialect(",", NO_QUOTE).cells('"a,b"\n') == ['"a', 'b"']


def test_two_delimiters_that_are_equally_likely_are_asked_for() -> None:
    with pytest.raises(FileProblem, match="could be separated by ',' or ';'"):
        sniff(["a,b;c\n", "1,2;3\n"], "usage.csv", None, None, WANTED)


@pytest.mark.parametrize(
    ("cells", "comma_file", "form"),
    [
        (["1", "2"], True, NumberForm(POINT)),
        (["1", "2"], False, NumberForm(None)),
        (["1.5", "1.234"], False, NumberForm(POINT)),
        (["0,125"], True, NumberForm(COMMA)),
        (["1,5", "1.234"], False, NumberForm(COMMA, ".")),
        (["1.234.567"], False, NumberForm(COMMA, ".")),
        (["1,234.5", "7"], True, NumberForm(POINT, ",")),
        (["1234,567"], False, NumberForm(COMMA)),
        (["1 234,50"], False, NumberForm(COMMA)),
        (["1.234"], True, NumberForm(POINT)),
        (["-1,234", "2.5"], True, NumberForm(POINT, ",")),
        (["n/a", "", "1e5"], True, NumberForm(POINT)),
    ],
)
def test_the_form_of_numbers_follows_from_numbers_that_have_one_meaning(
    cells: list[str], comma_file: bool, form: NumberForm
) -> None:
    assert form_of(cells, point_is_usual=comma_file) == form


@pytest.mark.parametrize(
    ("cells", "comma_file"),
    [(["1,234"], True), (["1,234"], False), (["1.234", "12.345"], False), (["1.5", "1,5"], True)],
)
def test_numbers_with_two_meanings_are_asked_for(cells: list[str], comma_file: bool) -> None:
    with pytest.raises(AmbiguousNumbers):
        form_of(cells, point_is_usual=comma_file)


@pytest.mark.parametrize(
    ("form", "text", "number"),
    [
        (NumberForm(), "12.50", "12.50"),
        (NumberForm(), "+5", "5"),
        (NumberForm(), ".5", "0.5"),
        (NumberForm(), "-.5", "-0.5"),
        (NumberForm(), "5.", "5"),
        (NumberForm(), "1e-3", "0.001"),
        (NumberForm(), "1 234 567.5", "1234567.5"),
        (NumberForm(), "x", "x"),
        (NumberForm(POINT, COMMA), "1,234,567.5", "1234567.5"),
        (NumberForm(COMMA), "1,5", "1.5"),
        (NumberForm(COMMA), "1'234,5", "1234.5"),
        (NumberForm(COMMA, POINT), "1.234,5", "1234.5"),
        (NumberForm(COMMA, POINT), "-1.234", "-1234"),
        (NumberForm(None), "12", "12"),
        (NumberForm(None), "1.5", "1.5"),
    ],
)
def test_numbers_become_those_of_the_contract(form: NumberForm, text: str, number: str) -> None:
    assert form.reader()(text) == number


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (NumberForm(), "1,5"),
        (NumberForm(), "1,234"),
        (NumberForm(POINT, COMMA), "1,23"),
        (NumberForm(POINT, COMMA), "1,2345"),
        (NumberForm(COMMA), "1.5"),
        (NumberForm(COMMA), "1.234"),
        (NumberForm(None), "1.234"),
        (NumberForm(None), "1,5"),
    ],
)
def test_a_number_that_is_not_certain_is_refused_and_never_guessed(form: NumberForm, text: str) -> None:
    with pytest.raises(BadNumber):
        form.reader()(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3), st.sampled_from([POINT, COMMA]), st.booleans())
def test_a_number_is_read_exactly_or_not_at_all(value: object, decimal: str, grouped: bool) -> None:
    other = COMMA if decimal == POINT else POINT
    plain = f"{value:f}"
    text = f"{value:,f}" if grouped else plain
    written = text.translate({ord(POINT): decimal, ord(COMMA): other})
    try:
        form = form_of([written], point_is_usual=False)
        read = form.reader()(written)
    except (AmbiguousNumbers, BadNumber):
        return
    assert read.removeprefix("-0.000") == plain.removeprefix("-0.000")
