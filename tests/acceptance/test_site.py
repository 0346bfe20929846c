"""The documents as a site: built strictly, complete, and without anything from elsewhere."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.support.site.blocks import DOCS, ROOT

# Addresses in scripts and styles of the theme. A page loads none of them:
HARMLESS = {
    "https://api.github.com/repos/": "numbers of a repository, which the site does not name (repo_url)",
    "https://api.github.com/users/": "the same",
    "https://gitlab.com/api/v4/projects/": "the same",
    "https://unpkg.com/mermaid": "diagrams, of which no page has one",
    "https://unpkg.com/resize-observer-polyfill": "for browsers of before 2020",
}
# What makes a browser load something.
LOADING = {
    "audio": "src", "embed": "src", "iframe": "src", "img": "src", "input": "src", "link": "href", "object": "data",
    "script": "src", "source": "src", "track": "src", "video": "src",
}  # fmt: skip


class Html(HTMLParser):
    """What a page loads, what it links to, its ids, and the classes of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Notes an element."""
        values = {name: value or "" for name, value in attributes}
        self.ids.add(values.get("id", ""))
        self.classes.update(values.get("class", "").split())
        if tag in LOADING and LOADING[tag] in values:
            self.loaded.append(values[LOADING[tag]])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make site` builds it."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed; the extra dev has it")
    folder = tmp_path_factory.mktemp("site")
    complaints = build(ROOT, folder)
    assert complaints == []
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Html]:
    """The pages of the site by their paths."""
    return {path.relative_to(site).as_posix(): Html(path.read_text()) for path in site.rglob("*.html")}


def build(root: Path, folder: Path) -> list[str]:
    """Builds the site of a repository, as `make site` does; its complaints, of which each one fails the build."""
    finished = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    complaints = [line for line in finished.stdout.splitlines() if line and not line.startswith("INFO ")]
    assert (finished.returncode == 0) is (complaints == []), finished.stdout
    return complaints


@pytest.mark.parametrize(
    ("page", "text", "complaint"),
    [
        ("glossary.md", "\n[gone](nowhere.md)\n", "'nowhere.md'"),
        ("glossary.md", "\n[gone](watch.md#nowhere)\n", "'#nowhere'"),
        ("how-to/unlisted.md", "# Unlisted\n", "unlisted.md"),
    ],
)
def test_a_fault_fails_the_build(tmp_path: Path, page: str, text: str, complaint: str) -> None:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed; the extra dev has it")
    root = tmp_path / "root"
    (root / "docs" / "how-to").mkdir(parents=True)
    (root / "proto" / "documents").mkdir(parents=True)
    shutil.copy(ROOT / "proto" / "documents" / "site.py", root / "proto" / "documents")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/glossary.md", "docs/watch.md"):
        (root / name).write_text("# A page\n")
    configuration = re.sub(r"^nav:\n.*", "", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE | re.DOTALL)
    listed = ["overview.md", "contributing.md", "changelog.md", "glossary.md", "watch.md"]
    (root / "mkdocs.yml").write_text(configuration + yaml.safe_dump({"nav": listed}))
    assert build(root, tmp_path / "good") == []
    with (root / "docs" / page).open("a") as file:
        file.write(text)
    assert complaint in "\n".join(build(root, tmp_path / "bad"))


def test_every_document_is_a_page(pages: dict[str, Html]) -> None:
    expected = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    expected = {name.replace("README.html", "index.html") for name in expected}
    assert expected | {"overview.html", "contributing.html", "changelog.html", "404.html"} == set(pages)


def test_a_page_loads_nothing_from_elsewhere(site: Path, pages: dict[str, Html]) -> None:
    for name, page in pages.items():
        assert [address for address in page.loaded if urlsplit(address).netloc] == [], name
        assert "mermaid" not in page.classes, name
    for path in [*site.rglob("*.css"), *site.rglob("*.html")]:
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text()) == [], path.name


def test_the_scripts_of_the_theme_load_only_what_no_page_asks_for(site: Path) -> None:
    found: set[str] = set()
    for path in (site / "assets" / "javascripts").rglob("*.js"):
        if path.parent.name != "min" and "lunr" not in path.parts:
            found |= set(re.findall(r"https?://(?:api\.|unpkg|cdn|gitlab)[\w./-]*", path.read_text()))
    assert {address.partition("@")[0] for address in found} <= set(HARMLESS), found
    assert "repo_url" not in (ROOT / "mkdocs.yml").read_text()


def test_links_of_the_built_pages_have_targets(site: Path, pages: dict[str, Html]) -> None:
    broken = []
    for name, page in pages.items():
        for address in page.links:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or name == "404.html":
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / name
            target = target / "index.html" if target.is_dir() else target
            found = target.resolve().relative_to(site.resolve()).as_posix()
            if not target.is_file() or (parts.fragment and found in pages and parts.fragment not in pages[found].ids):
                broken.append((name, address))
    assert broken == []


def test_the_search_knows_every_guide(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text()
    for page in ("start/five-minutes.html", "how-to/budget.html", "api/alert-service.html", "glossary.html"):
        assert f'"location":"{page}"' in index


def test_the_lists_of_a_page_are_lists(pages: dict[str, Html], site: Path) -> None:
    text = (site / "api" / "alert-service.html").read_text()
    assert "<p>- " not in text
    assert re.search(r"<li>\s*<p><code>evaluate_on_create</code>.*?<p>NOTE: .*?</li>", text, re.DOTALL)
