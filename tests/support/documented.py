"""The commands and settings that a page of docs/ shows, so that tests run exactly these."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def section(page: str, heading: str) -> str:
    """The text of a page of docs/ below a heading, up to the next heading of any level."""
    text = (ROOT / "docs" / page).read_text()
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", _without_comments(text), re.MULTILINE | re.DOTALL
    )
    assert found is not None, f"{page} has no heading {heading!r}"
    return found[1].replace("\0", "#")


def blocks(page: str, heading: str, language: str = "sh") -> list[str]:
    """The blocks of code in a language below a heading, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", section(page, heading), re.MULTILINE | re.DOTALL)


def _without_comments(text: str) -> str:
    """The text with another character for the # that begins a line of code: it is no heading."""
    return re.sub(
        r"^```.*?^```", lambda block: re.sub(r"^#", "\0", block[0], flags=re.MULTILINE), text, flags=re.M | re.S
    )
