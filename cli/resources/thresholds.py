"""Thresholds as options have them: `100`, `80%`, `+50`, `100:critical`, or all fields."""

import re
from typing import Any

from cli.resources.documents import read_short
from cli.resources.values import BadValue

NAME = "Threshold"  # of the message
_SHORT = re.compile(r"(?P<sign>\+?)(?P<level>-?\d+(?:\.\d+)?)(?P<percent>%?)(?::(?P<severity>[a-z]+))?")


def put_threshold(target: Any, text: str, *, percent_of_limit: bool = True) -> None:
    """Fills a threshold. percent_of_limit: what `80%` means; otherwise it is the level 80. Raises BadValue."""
    found = _SHORT.fullmatch(text)
    if found is None:
        if "=" not in text and ":" not in text:
            raise BadValue(f"{text!r} is no level: write 100, 80%, +50, 100:critical, or value=100,code=block")
        read_short(text, target)
        return
    if found["percent"] and percent_of_limit:
        target.percent_of_limit = found["level"]
    elif found["sign"]:
        target.recurring_step = found["level"]
    else:
        target.value = found["level"]
    if found["severity"]:
        read_short(f"severity={found['severity']}", target)
