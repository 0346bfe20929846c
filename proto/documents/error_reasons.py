"""The error reasons of the contract, as their comments describe them."""

import json
import re
from dataclasses import dataclass

from generated.tidemark.v1 import error_reason_pb2
from proto.documents.contract import PACKAGE, comments

_COMMENT = re.compile(
    r"(?P<name>\w+) \((?P<code>[A-Z_]+)\) (?P<text>.*?)\n\nExample:\n\n(?P<example>    \{.*)", re.DOTALL
)
_MENTIONED = re.compile(r"ERROR_REASON_[A-Z]+(?:_[A-Z]+)*")


@dataclass(frozen=True, slots=True)
class DocumentedReason:
    """One reason: its name, the gRPC code that it comes with, what it means, and the metadata of its example."""

    name: str
    code: str
    text: str
    metadata: dict[str, str]


def documented_reasons() -> list[DocumentedReason]:
    """Every reason but the unspecified one, by number.

    Raises ValueError when a comment has not the form "NAME (CODE) text", "Example:" and a google.rpc.ErrorInfo.
    """
    values = error_reason_pb2.ErrorReason.DESCRIPTOR.values
    return [_documented(value.name) for value in values if value.number]


def _documented(name: str) -> DocumentedReason:
    found = _COMMENT.fullmatch(comments()[f"{PACKAGE}.ErrorReason.{name}"])
    if found is None or found["name"] != name:
        raise ValueError(f"the comment of {name} has not the form of the others")
    example = json.loads(found["example"])
    if (example["reason"], example["domain"]) != (name, "tidemark.dev"):
        raise ValueError(f"the example of {name} is about something else")
    return DocumentedReason(name, found["code"], found["text"], example["metadata"])


def mentioned_reasons(text: str) -> list[str]:
    """The names of the reasons in a text, in their order, each once."""
    return list(dict.fromkeys(_MENTIONED.findall(text)))
