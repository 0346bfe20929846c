"""The hooks of mkdocs.yml: pages of docs/ become pages of the site, unchanged for those who read the files.

- Links that leave docs/ get a target in the site. README, CONTRIBUTING and CHANGELOG are pages; any other file of the
  repository is a text below `source/`, and a folder is the list of its files.
- Python-Markdown expects four spaces where GitHub's Markdown takes two or three: the lists are indented anew.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Files of the root that are pages of the site.
PAGES = {"README.md": "overview.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

_LINK = re.compile(r"(\[[^\]]*\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^( *)(```+)")
_ITEM = re.compile(r"^( *)([-*]|\d+\.) ")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the root, and every file of the repository that a page links to."""
    for name, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text()))
    linked: dict[str, str] = {}
    for file in [file for file in files if file.is_documentation_page()]:
        for _, target in _links(file.content_string, file.src_uri):
            if target.startswith("source/"):
                linked[target] = _text(target)
    for target, text in sorted(linked.items()):
        files.append(File.generated(config, target, content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page in the Markdown of the site."""
    for link, target in _links(markdown, page.file.src_uri):
        relative = posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")
        markdown = markdown.replace(link, re.sub(_LINK, lambda found: f"{found[1]}{relative}{found[3]}", link))  # noqa: B023
    return "\n".join(_lines(markdown))


def _links(markdown: str, page: str) -> Iterator[tuple[str, str]]:
    """The links of a page that a reader of the site cannot follow, each with the path of its target in the site."""
    home = ROOT if page in PAGES.values() else (ROOT / "docs" / page).parent
    for link in {found[0] for found in _LINK.finditer(_without_code(markdown))}:
        found = _LINK.fullmatch(link)
        assert found is not None
        if re.match(r"[a-z]+:", found[2]):
            continue
        path = (home / found[2]).resolve()
        inside = path.relative_to(ROOT).as_posix()
        if inside in PAGES:
            yield link, PAGES[inside]
        elif path.is_relative_to(ROOT / "docs"):
            if home == ROOT:
                yield link, path.relative_to(ROOT / "docs").as_posix()
        elif path.exists():
            yield link, f"source/{inside}.txt"


def _text(target: str) -> str:
    """The content of a file below `source/`."""
    path = ROOT / target.removeprefix("source/").removesuffix(".txt")
    if path.is_file():
        return path.read_text()
    names = [one.relative_to(ROOT).as_posix() for one in sorted(path.rglob("*")) if one.is_file()]
    return "\n".join(name for name in names if "/node_modules/" not in name and "/__pycache__/" not in name) + "\n"


def _without_code(markdown: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", markdown, flags=re.DOTALL | re.MULTILINE)


def _lines(markdown: str) -> Iterator[str]:
    """The lines of a page, with lists as Python-Markdown reads them, and tables without the escapes in its code."""
    fence, shift = "", 0  # the fence that is open; by how much its lines move to the right
    before, in_list = "", False
    for line in markdown.splitlines():
        marker = _FENCE.match(line)
        if fence:
            yield " " * shift + line if line else line
            if marker and line.strip() == fence:
                fence, before = "", line
            continue
        indented = len(line) - len(line.lstrip(" "))
        item = _ITEM.match(line)
        if line and not indented:
            if item and before and not in_list and not before.startswith(">"):
                yield ""
            in_list = bool(item) or (in_list and bool(before))
        shift = 4 * ((indented + 2) // 4 if in_list else 0) - (indented if in_list else 0)
        if in_list and 0 < indented < 4:
            shift = 4 - indented
        if marker:
            fence = marker[2]
        if line.startswith("|"):
            line = re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), line)
        before = line
        yield " " * shift + line if shift > 0 and line else line
