"""Writes the documents that are made from the contract, or checks that what is committed is what it makes.

python -m proto.documents write    docs/openapi.json, docs/api.md, docs/api/, docs/cli-reference.md,
                                   gateway/openapi.json, cli/resources/descriptions.json, and the texts of the
                                   console's form
python -m proto.documents check    exit 1 and name the files that differ
"""

import json
import sys

from proto.documents.command_line import command_line
from proto.documents.contract import ROOT
from proto.documents.descriptions import descriptions
from proto.documents.form_help import form_help
from proto.documents.openapi import openapi
from proto.documents.pages import pages

DOCS = ROOT / "docs"


def documents() -> dict[str, str]:
    """Every document with its path below the repository."""
    described = json.dumps(openapi(), indent=1, ensure_ascii=False) + "\n"
    return {
        "docs/openapi.json": described,
        "gateway/openapi.json": described,  # it is served: the package does not contain docs/
        **{f"docs/{name}": text for name, text in pages().items()},
        "cli/resources/descriptions.json": descriptions(),
        "docs/cli-reference.md": command_line(),
        "console/forms/help.json": form_help(),
    }


def write() -> None:
    """Replaces the documents, and removes pages that are no longer made."""
    made = documents()
    for path in (DOCS / "api").glob("*.md"):
        if f"docs/api/{path.name}" not in made:
            path.unlink()
    for name, text in made.items():
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(text)


def check() -> None:
    """Exits with 1 when a document is not what the contract makes."""
    made = documents()
    committed = {*made, *(f"docs/api/{path.name}" for path in (DOCS / "api").glob("*.md"))}
    differing = sorted(
        name for name in committed if not (ROOT / name).exists() or (ROOT / name).read_text() != made.get(name)
    )
    if differing:
        raise SystemExit(f"{', '.join(differing)}: not what the contract makes; run `make docs`")
    sys.stdout.write(f"the documents are what the contract makes ({len(made)} files)\n")


def main(arguments: list[str]) -> None:
    match arguments:
        case ["write"]:
            write()
        case ["check"]:
            check()
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
