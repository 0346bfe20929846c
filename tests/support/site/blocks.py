"""The blocks of code of a page."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r'^```([a-z]*)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One block of code: its language, its title ("" without one), its text, and the line on which it begins."""

    language: str
    title: str
    text: str
    line: int

    @property
    def in_a_terminal(self) -> bool:
        """Whether it belongs to a terminal of its own: what is typed there, or what is printed there."""
        return self.title.startswith("terminal")

    @property
    def source(self) -> Path | None:
        """The file of the repository that it quotes."""
        path = ROOT / self.title
        return path if self.title and path.is_file() else None


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in their order. Every fence of it is one."""
    text = page.read_text()
    found = [
        Block(one[1], one[2] or "", one[3], text.count("\n", 0, one.start()) + 1) for one in _BLOCK.finditer(text)
    ]
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.MULTILINE)), f"{page.name} has another kind of fence"
    return found


def guides() -> list[Path]:
    """The pages whose blocks are run: those that a reader follows."""
    return sorted(page for folder in ("start", "how-to", "recipes") for page in (DOCS / folder).glob("*.md"))
