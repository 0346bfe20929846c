"""Tables on terminals of every width."""

import re

import pytest

from cli.resources.grid import display_width, lines, shortened
from cli.resources.tables.model import Column, Form

COLUMNS = (
    Column("id", "id", Form.ID),
    Column("name", "name"),
    Column("amount", "amount", Form.NUMBER),
    Column("state", "state", Form.STATE, rank=1),
    Column("labels", "labels", Form.MAP, rank=2),
    Column("empty", "empty", rank=3),
)
ROWS = [
    ["whe_zyy5q6x6tovg7rlzzqmxst4lqi", "株式会社 日本テスト", "1200 USD", "enabled", "team=growth,region=eu", ""],
    ["x" * 128, "Zoë\u0301 & Söhne 🚀 " * 6, "0.10 api_calls", "disabled", "", ""],
    ["c-1", "", "", "", "", ""],
]


def printed(width: int | None, rows: list[list[str]] = ROWS) -> list[str]:
    made = lines(COLUMNS, rows, lambda _column, _text: str, width)
    return [re.sub(r"\x1b\[\d+m", "", line) for line in made]


@pytest.mark.parametrize("width", [60, 79, 80, 81, 100, 120, 160, 240])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    assert max(display_width(line) for line in printed(width)) <= width


def test_columns_of_high_rank_go_first_and_ids_stay_whole_as_long_as_there_is_room() -> None:
    assert "LABELS" in printed(160)[0]
    narrow = printed(80)
    assert "LABELS" not in narrow[0]
    assert narrow[0].split()[:3] == ["ID", "NAME", "AMOUNT"]
    assert "whe_zyy5q6x6tovg7rlzzqmxst4lqi" in narrow[1]
    assert "…" in narrow[2]
    assert "x…x" in narrow[2]


def test_without_a_terminal_nothing_is_cut_and_a_column_without_a_value_is_left_out() -> None:
    wide = printed(None)
    assert "x" * 128 in wide[2]
    assert "…" not in "".join(wide)
    assert "EMPTY" not in wide[0]


def test_a_table_without_rows_is_its_headings() -> None:
    assert printed(80, []) == ["ID  NAME  AMOUNT  STATE  LABELS  EMPTY"]


def test_numbers_are_aligned_at_their_ends_also_beside_wide_characters() -> None:
    first, second, third = printed(None, [[*ROWS[0][:3], "", "", ""], ["a", "b", "5 USD", "", "", ""]])
    ends = {display_width(line) for line in (first, second, third)}
    assert len(ends) == 1


@pytest.mark.parametrize(
    ("text", "size", "form", "expected"),
    [
        ("abcdef", 6, Form.TEXT, "abcdef"),
        ("abcdefg", 6, Form.TEXT, "abcde…"),
        ("日本テスト", 6, Form.TEXT, "日本…"),
        ("0123456789abcdef", 10, Form.ID, "012345…def"),
    ],
)
def test_texts_are_cut_at_their_ends_and_ids_in_their_middle(text: str, size: int, form: Form, expected: str) -> None:
    assert shortened(text, size, form) == expected
    assert display_width(shortened(text, size, form)) <= size
