"""Amounts and quantities: exact decimals, from the text of the contract and back."""

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

# Enough digits for a sum of 10^40 amounts; anything that would round raises instead.
EXACT = Context(
    prec=MAX_DIGITS + MAX_DECIMALS + 40,
    traps=[Clamped, DivisionByZero, FloatOperation, Inexact, InvalidOperation, Overflow],
)

_GRAMMAR = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?", re.ASCII)
# What nearly every amount looks like; none that matches has too many digits.
_SHORT = re.compile(rf"-?[0-9]{{1,{MAX_DIGITS - MAX_DECIMALS}}}(?:\.[0-9]{{1,{MAX_DECIMALS}}})?", re.ASCII)

ZERO = Decimal(0)


class AmountError(ValueError):
    """The text is not an amount; the message says what an amount looks like."""


def parse_decimal(text: str) -> Decimal:
    """The exact value of `text`: digits, an optional leading minus, an optional point with digits behind it.

    At most 38 digits in all and 18 after the point; no exponent, plus sign, blank, NaN or infinity.
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
    """The exact values of many texts, each as `parse_decimal` reads it; raises AmountError when one has none."""
    if all(map(_SHORT.fullmatch, texts)):
        return list(map(Decimal, texts))
    return list(map(parse_decimal, texts))


def format_decimal(value: Decimal) -> str:
    """The shortest plain text of `value`: no exponent, no trailing zeros, "0" for zero of either sign."""
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Within the block sums of Decimals are exact; the default context would round to 28 digits."""
    with localcontext(EXACT):
        yield
