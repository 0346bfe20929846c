"""The links of docs/ and the README have targets: files, headings, and the tests of the rules of semantics.md."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from evaluator.alerts import ConditionType

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "changes" / "README.md", *(ROOT / "docs").rglob("*.md")])
SEMANTICS = ROOT / "docs" / "semantics.md"

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def links(page: Path) -> list[tuple[str, str]]:
    """The text and the target of each link of a page, code left out."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return _LINK.findall(text)


@cache
def names_of_tests(path: Path) -> frozenset[str]:
    """The names of the test functions of a module."""
    tree = ast.parse(path.read_text())
    return frozenset(
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    )


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of the headings of a page."""
    headings = re.findall(r"^#+ +(.*)$", page.read_text(), re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def missing(page: Path, text: str, target: str) -> str | None:
    """The missing part of a link's target; None when nothing is missing."""
    if re.match(r"[a-z]+:", target):
        return None
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.exists():
        return f"there is no file {name}"
    if anchor and path.suffix == ".md" and anchor not in anchors(path):
        return f"{path.name} has no heading {anchor}"
    called = text.strip("`")
    if called.startswith("test_") and path.suffix == ".py" and not called.endswith(".py"):
        return None if called in names_of_tests(path) else f"{name} has no test {called}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_a_target(page: Path) -> None:
    found = [(text, problem) for text, target in links(page) if (problem := missing(page, text, target))]
    assert found == []


def missing_modules(text: str) -> list[str]:
    """The modules that a text names in backticks and that do not exist: `a/b.py`, or `b.py` in any folder."""
    named = set(re.findall(r"`([\w./-]+\.(?:py|pyx|pxd|proto))`", text))
    return sorted(one for one in named if not any(f"/{path}".endswith(f"/{one}") for path in sources()))


@cache
def sources() -> frozenset[str]:
    """The paths of all modules and files of the contract, from the root."""
    rooms = [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    patterns = ("*.py", "*.pyx", "*.pxd", "*.proto")
    paths = [*ROOT.glob("*.py"), *(path for room in rooms for pattern in patterns for path in room.rglob(pattern))]
    return frozenset(path.relative_to(ROOT).as_posix() for path in paths)


@pytest.mark.parametrize("name", ["docs/design.md", "CONTRIBUTING.md"])
def test_every_module_that_a_page_names_exists(name: str) -> None:
    assert missing_modules((ROOT / name).read_text()) == []


def test_a_module_that_does_not_exist_is_found() -> None:
    assert missing_modules("`store/usage/gauges.py`, `gauges.py`, `usage/gauges.py`") == []
    assert missing_modules("`store/gauges.py`, `auges.py`") == ["auges.py", "store/gauges.py"]


def rules(page: Path) -> list[str]:
    """The rows of the page's tables of rules."""
    found, inside = [], False
    for line in page.read_text().splitlines():
        if line == "| rule | test |":
            inside = True
        elif not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            found.append(line)
    return found


def test_every_rule_is_linked_to_its_test() -> None:
    stated = rules(SEMANTICS)
    assert len(stated) > 80
    unlinked = []
    for rule in stated:
        targets = [target for text, target in _LINK.findall(rule) if text.startswith("`test_")]
        if not targets or not all(target.startswith("../tests/") for target in targets):
            unlinked.append(rule)
    assert unlinked == []


def test_every_condition_has_a_row() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \|", SEMANTICS.read_text(), re.MULTILINE)
    assert [name for name in rows if name in set(ConditionType)] == [one.value for one in ConditionType]


@pytest.mark.parametrize(
    ("text", "target", "problem"),
    [
        ("gone", "nowhere.md", "there is no file nowhere.md"),
        ("gone", "events/README.md#nothing", "README.md has no heading nothing"),
        ("`test_nothing`", "../tests/unit/test_docs.py", "../tests/unit/test_docs.py has no test test_nothing"),
        ("`test_every_link_has_a_target`", "../tests/unit/test_docs.py", None),
        ("elsewhere", "https://example.com", None),
    ],
)
def test_a_link_without_a_target_is_found(text: str, target: str, problem: str | None) -> None:
    assert missing(SEMANTICS, text, target) == problem
