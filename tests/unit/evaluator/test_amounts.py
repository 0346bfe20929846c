"""Amounts: the grammar of the contract, and exact values that are never rounded."""

from decimal import Decimal, FloatOperation, Inexact
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluator.amounts import AmountError, exact_arithmetic, format_decimal, parse_decimal, parse_decimals

FINE = {
    "0": "0",
    "-0": "0",
    "-0.000": "0",
    "007": "7",
    "12.50": "12.5",
    "-12.5": "-12.5",
    "100": "100",
    "0.000000000000000001": "0.000000000000000001",
    "9" * 38: "9" * 38,
    "9" * 20 + "." + "9" * 18: "9" * 20 + "." + "9" * 18,
    "-" + "1" * 37 + ".5": "-" + "1" * 37 + ".5",
}
MALFORMED = [
    "",
    " ",
    "+1",
    " 1",
    "1 ",
    "1\n",
    "1\n2",
    "\t1",
    "1e3",
    "1E-3",
    "NaN",
    "sNaN",
    "inf",
    "-Infinity",
    ".5",
    "5.",
    "-",
    ".",
]
MALFORMED += ["-", ".", "--1", "1-", "1.2.3", "1,5", "1_000", "0x10", "١٢", "½", "１", "1\u200b", "1;DROP"]
TOO_LONG = ["1" * 39, "0." + "1" * 19, "1" * 21 + "." + "1" * 18, "0" * 60, "-0." + "0" * 19]

digits = st.text("0123456789", min_size=1)


@st.composite
def amounts(draw: st.DrawFn) -> str:
    """Any text of the grammar within its limits."""
    decimals = draw(st.text("0123456789", max_size=18))
    whole = draw(st.text("0123456789", min_size=1, max_size=38 - len(decimals)))
    return draw(st.sampled_from(["", "-"])) + whole + ("." + decimals if decimals else "")


@pytest.mark.parametrize("text", FINE)
def test_a_valid_amount_is_read_exactly_and_shown_in_its_shortest_form(text: str) -> None:
    value = parse_decimal(text)
    assert format_decimal(value) == FINE[text]
    assert parse_decimals([text, "1", text]) == [value, Decimal(1), value]


@pytest.mark.parametrize("text", [*MALFORMED, *TOO_LONG])
def test_an_invalid_amount_is_refused_alone_and_among_others(text: str) -> None:
    with pytest.raises(AmountError):
        parse_decimal(text)
    with pytest.raises(AmountError):
        parse_decimals(["1", text, "2"])


def test_a_refusal_shows_only_the_beginning_of_the_text() -> None:
    with pytest.raises(AmountError) as refused:
        parse_decimal("x" * 10_000)
    assert len(str(refused.value)) < 200


@given(amounts())
def test_an_amount_is_equal_after_it_is_shown_and_read(text: str) -> None:
    value = parse_decimal(text)
    shown = format_decimal(value)
    assert parse_decimal(shown) == value
    assert "e" not in shown.lower()
    assert shown == "0" or not (shown.startswith("-0") and "." not in shown)
    assert "." not in shown or not shown.endswith(("0", "."))


@given(st.lists(amounts(), max_size=50))
def test_sums_are_exact_in_any_order(texts: list[str]) -> None:
    values = parse_decimals(texts)
    with exact_arithmetic():
        forwards, backwards = sum(values, Decimal(0)), sum(reversed(values), Decimal(0))
    assert forwards == backwards
    assert Fraction(forwards) == sum(map(Fraction, values), Fraction(0))


def test_an_amount_that_the_default_context_would_round_is_exact() -> None:
    large, small = Decimal("99999999999999999999"), Decimal("0.000000000000000001")
    assert large + small == large
    with exact_arithmetic():
        assert format_decimal(large + small) == "99999999999999999999.000000000000000001"
        assert format_decimal((large + small) * 10**30 - large * 10**30) == "1000000000000"


def test_a_result_that_cannot_be_exact_raises() -> None:
    with exact_arithmetic(), pytest.raises(Inexact):
        Decimal(1) / Decimal(3)
    with exact_arithmetic(), pytest.raises(FloatOperation):
        Decimal(float("0.5"))
