"""Decimal strings of the API as people read them: grouped digits, units, shares. Never floats."""

from decimal import ROUND_DOWN, Decimal, InvalidOperation, localcontext

MAX_DIGITS = 8  # after the point that are shown

# ISO 4217 codes with a sign that everybody knows. Others stand behind the number.
_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}


def decimal(text: str) -> Decimal | None:
    """The number; None if the text is empty or no number."""
    try:
        return Decimal(text) if text else None
    except InvalidOperation:
        return None


def grouped(text: str | Decimal) -> str:
    """The number with groups of three digits: 1,234,567.25. A text that is no number stays as it is."""
    number = text if isinstance(text, Decimal) else decimal(text)
    if number is None:
        return str(text)
    shown = f"{rounded(number):,f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown


def rounded(number: Decimal) -> Decimal:
    """The number with as many digits as people read: four digits that count, two of them after the point.

    It is rounded towards zero, so that a value just below a level does not look like the level.
    """
    digits = min(max(2, 1 - number.adjusted() + 1), MAX_DIGITS) if number else 0
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or exponent >= -digits:
        return number
    with localcontext(prec=200):
        return number.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_DOWN)


def money(text: str | Decimal, currency: str) -> str:
    """An amount with its currency: $1,234.50, 12 CHF."""
    number = text if isinstance(text, Decimal) else decimal(text)
    if number is None:
        return str(text)
    shown = grouped(number)
    whole, point, part = shown.partition(".")
    if len(currency) == 3 and currency.isupper() and currency != "JPY" and (point and len(part) < 2):
        shown = f"{whole}.{part:0<2}"
    sign = _SIGNS.get(currency)
    if sign is None:
        return f"{shown} {currency}"
    return f"−{sign}{shown[1:]}" if shown.startswith("-") else f"{sign}{shown}"


def with_unit(text: str | Decimal, unit: str, kind: str = "quantity") -> str:
    """A number with its unit. kind: money, percent, days or quantity."""
    if kind == "money":
        return money(text, unit)
    if kind == "percent":
        return f"{grouped(text)}\u00a0%"
    if kind == "days":
        return f"{grouped(text)} days"
    return f"{grouped(text)} {unit}".rstrip()


def share(value: Decimal | None, whole: Decimal | None) -> Decimal | None:
    """value ÷ whole, from 0 to 1; None where there is none."""
    if value is None or whole is None or whole <= 0:
        return None
    return min(max(value / whole, Decimal(0)), Decimal(1))


def percent_of(value: Decimal | None, whole: Decimal | None) -> str:
    """value in percent of whole, with one digit where it is below 10; empty where there is none."""
    if value is None or whole is None or whole == 0:
        return ""
    number = value * 100 / whole
    digits = Decimal("0.1") if abs(number) < 10 else Decimal(1)
    return f"{grouped(number.quantize(digits))}\u00a0%"


def compact(number: Decimal) -> str:
    """A number for an axis: 950, 1.2k, 3.4M."""
    for limit, sign in (
        (Decimal(10) ** 12, "T"),
        (Decimal(10) ** 9, "G"),
        (Decimal(10) ** 6, "M"),
        (Decimal(1000), "k"),
    ):
        if abs(number) >= limit:
            scaled = (number / limit).quantize(Decimal("0.01"))
            return f"{scaled:f}".rstrip("0").rstrip(".") + sign
    return grouped(number.quantize(Decimal("0.0001")) if number % 1 else number)
