"""Amounts and quantities: exact decimals, read from text and written to text."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import (
    Clamped,
    Context,
    Decimal,
    DivisionByZero,
    FloatOperation,
    Inexact,
    InvalidOperation,
    Overflow,
    localcontext,
)

MAX_DIGITS = 38  # digits of one amount, before and after the point together
MAX_DECIMALS = 18  # digits after the point

# Enough digits for a sum of 10^40 amounts. An operation that would round raises an error.
EXACT = Context(
    prec=MAX_DIGITS + MAX_DECIMALS + 40,
    traps=[Clamped, DivisionByZero, FloatOperation, Inexact, InvalidOperation, Overflow],
)

_GRAMMAR = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?", re.ASCII)
# Lines with the form of nearly every amount. A match never has too many digits, so it needs no further check.
_SHORT = re.compile(rf"(?:-?[0-9]{{1,{MAX_DIGITS - MAX_DECIMALS}}}(?:\.[0-9]{{1,{MAX_DECIMALS}}})?\n)*", re.ASCII)

ZERO = Decimal(0)


class AmountError(ValueError):
    """The text is not an amount; the message describes what is allowed."""


def parse_decimal(text: str) -> Decimal:
    """The exact value of `text`: an optional minus, digits, and optionally a point followed by digits.

    At most 38 digits in total and 18 after the point; no exponent, plus sign, blank, NaN or infinity.
    Raises AmountError.
    """
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        shown = text if len(text) <= 40 else text[:40] + "…"
        raise AmountError(f"{shown!r} is not a decimal: write digits such as -12.50, without exponent or blanks")
    whole, decimals = match.groups(default="")
    if len(decimals) > MAX_DECIMALS:
        raise AmountError(f"it has {len(decimals)} digits after the point; at most {MAX_DECIMALS} are kept")
    if len(whole) + len(decimals) > MAX_DIGITS:
        raise AmountError(f"it has {len(whole) + len(decimals)} digits; at most {MAX_DIGITS} are kept")
    return Decimal(text)


def parse_decimals(texts: Sequence[str]) -> list[Decimal]:
    """The exact values of many texts, each as `parse_decimal` reads it. Raises AmountError."""
    # One match for all of them. A text that contains a line feed is no amount, but two of them in a row might match.
    lines = "\n".join(texts) + "\n"
    if _SHORT.fullmatch(lines) and lines.count("\n") == len(texts):
        return list(map(Decimal, texts))
    return list(map(parse_decimal, texts))


def format_decimal(value: Decimal) -> str:
    """The shortest text of `value` without an exponent or trailing zeros; "0" for zero of either sign."""
    text = str(value)  # several times as fast as a format
    if "E" in text:
        text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Makes arithmetic on Decimals exact inside the block; the default context rounds to 28 digits."""
    with localcontext(EXACT):
        yield
