"""Every `make bench` of the documents names a part, rows and options that exist."""

import re
import shlex

import pytest

from bench.__main__ import PLOTS, parser
from bench.parts import PARTS
from tests.support.documented import ROOT

PAGES = ("performance.md", "scaling.md")
COMMANDS = sorted(
    {part for page in PAGES for part in re.findall(r'make bench PART="([^"]+)"', (ROOT / "docs" / page).read_text())}
)
# What stands for a number of the reader.
_NUMBER = re.compile(r"\b(PRICE|MINUTES)\b")


@pytest.mark.parametrize("command", COMMANDS)
def test_part_that_a_page_names_exists(command: str) -> None:
    found = parser().parse_args(shlex.split(_NUMBER.sub("1", command)))
    assert found.part == PLOTS or set(found.only) <= set(PARTS[found.part].rows)


def test_pages_name_the_parts_of_one_postgresql_and_of_a_cluster() -> None:
    assert {"nodes", "room"} <= {command.split()[0] for command in COMMANDS}
