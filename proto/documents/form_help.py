"""The texts beside the fields of the console's form of an alert: the beginnings of the comments of the contract."""

import json
import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor

from generated.tidemark.v1 import alert_pb2
from proto.documents.contract import comments

MOST = 260  # characters of a text


def form_help() -> str:
    """The file: JSON from the full names of fields, messages and enum values to texts."""
    texts = comments()
    found = {
        name: _beginning(texts.get(name, ""), name.rpartition(".")[2]) for name in _names(alert_pb2.Alert.DESCRIPTOR)
    }
    return (
        json.dumps({name: text for name, text in sorted(found.items()) if text}, indent=1, ensure_ascii=False) + "\n"
    )


def _names(message: Descriptor, seen: set[str] | None = None) -> Iterator[str]:
    """The messages that an alert can contain, with their fields and oneofs."""
    seen = set() if seen is None else seen
    if message.full_name in seen or not message.full_name.startswith("tidemark."):
        return
    seen.add(message.full_name)
    yield message.full_name
    yield from (f"{message.full_name}.{one.name}" for one in message.oneofs)
    for field in message.fields:
        yield field.full_name
        if field.message_type is not None:
            yield from _names(field.message_type, seen)


def _beginning(comment: str, name: str) -> str:
    """The first sentences, without the name of the field at their beginning."""
    text = " ".join(comment.split("\n\n")[0].split())
    text = re.sub(rf"^{re.escape(name)}(, [^,]{{1,40}},)? (is |are )?", "", text)
    text = text[:1].upper() + text[1:]
    sentences = re.split(r"(?<=[.)])\s+(?=[A-Z])", text)
    kept = sentences[0]
    for sentence in sentences[1:]:
        if len(kept) + len(sentence) > MOST:
            break
        kept = f"{kept} {sentence}"
    return kept
