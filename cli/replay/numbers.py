"""Decimal numbers as files contain them."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

MAX_EXPONENT = 60  # powers of ten; a number beyond it stays unchanged, and the server rejects it
POINT, COMMA = ".", ","
# These separate thousands and nothing else: a space, spaces that do not break, and apostrophes.
GAPS = " \u00a0\u202f\u2009'\u2019"
_WITH_EXPONENT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+")
_PLAIN = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_ONE_SIGN = re.compile(r"[+-]?([0-9]*)([.,])([0-9]+)")
_GROUPS = re.compile(
    rf"[+-]?[0-9]{{1,3}}(?P<gap>[.,{GAPS}])[0-9]{{3}}(?:(?P=gap)[0-9]{{3}})*(?:(?P<sign>[.,])[0-9]*)?"
)


class BadNumber(ValueError):
    """A text is no number, or could be two; the message continues the name of the field."""


class AmbiguousNumbers(Exception):
    """The numbers of a file can be read in two ways. The message names an example; sign: the one it has."""

    def __init__(self, message: str) -> None:
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class NumberForm:
    """How a file writes numbers.

    decimal: the decimal sign; None: it is not known, and only numbers are read that are the same in all forms.
    thousands: what separates thousands, of the signs that could be decimal signs; empty: neither.
    """

    decimal: str | None = POINT
    thousands: str = ""

    def reader(self) -> Callable[[str], str]:
        """The function of a text that returns the number in the form of the contract. It raises BadNumber.

        What is no number in any form is returned as it is: the server rejects it, and says what a number is.
        """
        return {COMMA: self._comma, POINT: self._point, None: self._unknown}[self.decimal]

    def _point(self, text: str) -> str:
        if _PLAIN.fullmatch(text):
            return text
        if COMMA in text:
            text = self._without_thousands(text)
        return _contract_form(text)

    def _comma(self, text: str) -> str:
        if text.isdecimal():
            return text
        if POINT in text:
            text = self._without_thousands(text)
        return _contract_form(text.replace(COMMA, POINT, 1))

    def _without_thousands(self, text: str) -> str:
        found = _GROUPS.fullmatch(text)
        if found is None or found["gap"] != self.thousands or found["sign"] == self.thousands:
            other = COMMA if self.decimal == POINT else POINT
            raise BadNumber(
                f"has a {other!r}, but the decimal sign of the file is {self.decimal!r}: --thousands {other!r}"
                " allows it"
            )
        return text.replace(self.thousands, "")

    def _unknown(self, text: str) -> str:
        if text.isdecimal():
            return text
        evidence = evidence_of(text)
        if evidence in ((POINT, ""), None):
            return _contract_form(text)
        raise BadNumber("could have a decimal comma or thousands: say which sign is decimal with --decimal")


def without_exponent(number: str) -> str:
    """The same number without an exponent: 0.00001 for 1e-05. A text that is not a number stays unchanged."""
    try:
        value = Decimal(number)
    except InvalidOperation:  # not a number, or an exponent that Decimal cannot represent
        return number
    if not value.is_finite() or abs(value.adjusted()) > MAX_EXPONENT:
        return number
    return f"{value:f}"


def _contract_form(text: str) -> str:
    """A number with a point, without a plus, an exponent, and gaps between thousands."""
    if _PLAIN.fullmatch(text):
        return text
    if (found := _GROUPS.fullmatch(text)) is not None and found["gap"] in GAPS:
        text = text.replace(found["gap"], "")
    if _WITH_EXPONENT.fullmatch(text):
        text = without_exponent(text)
    text = text.removeprefix("+")
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    if digits.startswith(POINT):
        digits = f"0{digits}"
    return sign + digits.removesuffix(POINT)


def evidence_of(text: str) -> tuple[str, str] | None:
    """What a number says about the form of its file: the decimal sign and the separator of thousands.

    None: nothing. An empty decimal sign: it can be read in two ways, and the other is the sign it has.
    """
    if (found := _ONE_SIGN.fullmatch(text)) is not None:
        whole, sign, fraction = found.groups()
        could_be_thousands = len(fraction) == 3 and 1 <= len(whole) <= 3 and whole[0] != "0"
        return ("", sign) if could_be_thousands else (sign, "")
    if (found := _GROUPS.fullmatch(text)) is None:
        return None
    gap, sign = found["gap"], found["sign"] or ""
    if gap in GAPS:
        return (sign, "") if sign else None
    if sign == gap:
        return None
    return (COMMA if gap == POINT else POINT, gap)


def form_of(cells: Iterable[str], *, point_is_usual: bool) -> NumberForm:
    """The form of a file with these numbers. Raises AmbiguousNumbers.

    point_is_usual: commas separate the cells, so that numbers with a point have a decimal point if nothing says
    otherwise.
    """
    signs: Counter[str] = Counter()
    separators: set[str] = set()
    examples: dict[str, str] = {}
    unclear: dict[str, str] = {}
    for cell in cells:
        evidence = evidence_of(cell.strip())
        if evidence is None:
            continue
        decimal, separator = evidence
        if not decimal:
            unclear.setdefault(separator, cell.strip())
            continue
        signs[decimal] += 1
        examples.setdefault(decimal, cell.strip())
        if separator:
            separators.add(separator)
    if len(signs) > 1:
        raise AmbiguousNumbers(
            f"numbers have decimal points and decimal commas, such as {' and '.join(examples.values())}"
        )
    if signs:
        (decimal,) = signs
        other = COMMA if decimal == POINT else POINT
        return NumberForm(decimal, other if other in separators or other in unclear else "")
    if unclear and (COMMA in unclear or not point_is_usual):
        (_, example), *_ = sorted(unclear.items())
        raise AmbiguousNumbers(f"{example} can be read with a decimal sign or with thousands")
    return NumberForm(POINT if point_is_usual else None)
