"""The first sentences of the contract's comments, as the help of the command line shows them."""

import json
import re

from proto.documents.contract import MESSAGES, METHODS, comments

_SENTENCE = re.compile(r"^(.+?\.)(?=\s+[A-Z(]|\s*$)", re.DOTALL)
_COPULA = re.compile(r"^(?:is|are) (?=[a-z])")
LONG = 100  # characters; of a longer sentence only the part before a colon or a semicolon is kept


def descriptions() -> str:
    """The JSON of cli/resources/descriptions.json: fields and methods by their full names."""
    known = comments()
    names = [field.full_name for message in MESSAGES for field in message.fields]
    names += [method.full_name for method in METHODS]
    found = {name: sentence(known[name], name.rpartition(".")[2]) for name in sorted(names) if name in known}
    return json.dumps(found, indent=0, ensure_ascii=False) + "\n"


def sentence(comment: str, subject: str) -> str:
    """The first sentence of a comment, without its subject, which is a name: `Returns one alert.`"""
    text = " ".join(comment.split("\n\n")[0].split())
    match = _SENTENCE.match(text)
    first = (match[1] if match else text).rstrip(":.")
    if len(first) > LONG:
        first = re.split(r"[:;] ", first)[0]
    first = _COPULA.sub("", first.removeprefix(f"{subject} "))
    return f"{first[0].upper()}{first[1:]}." if first else ""
