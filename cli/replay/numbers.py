"""Decimal numbers as files contain them."""

from decimal import Decimal, InvalidOperation

MAX_EXPONENT = 60  # powers of ten; a number beyond it stays unchanged, and the server rejects it


def without_exponent(number: str) -> str:
    """The same number without an exponent: 0.00001 for 1e-05. A text that is not a number stays unchanged."""
    try:
        value = Decimal(number)
    except InvalidOperation:  # not a number, or an exponent that Decimal cannot represent
        return number
    if not value.is_finite() or abs(value.adjusted()) > MAX_EXPONENT:
        return number
    return f"{value:f}"
