"""The examples of docs/api: sessions of calls, one for each service, that a test runs against a real server."""

import json
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from proto.documents.contract import METHODS, ROOT

FOLDER = ROOT / "docs" / "api" / "examples"

Json = dict[str, Any]
_BY_NAME = {method.name: method for method in METHODS}


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a session: its request, and either its answers or its error.

    A method that does not stream has one answer; of a stream these are the first ones. The error has a code, a reason
    and metadata.
    """

    method: MethodDescriptor
    request: Json
    answers: list[Json]
    error: Json | None


def file_of(service: ServiceDescriptor) -> str:
    """The name of the service's session in the folder of examples."""
    return f"{service.file.name.rpartition('/')[2].removesuffix('.proto')}.json"


def session(service: ServiceDescriptor) -> list[Step]:
    """The calls of a service's session, in their order. It may call methods of other services, too."""
    steps = json.loads((FOLDER / file_of(service)).read_text())
    return [
        Step(_BY_NAME[step["method"]], step["request"], step.get("answers", []), step.get("error")) for step in steps
    ]


def save(service: ServiceDescriptor, steps: list[Step]) -> None:
    """Writes a service's session."""
    text = json.dumps([_written(step) for step in steps], indent=2, ensure_ascii=False)
    (FOLDER / file_of(service)).write_text(text + "\n")


def _written(step: Step) -> Json:
    outcome = {"answers": step.answers} if step.error is None else {"error": step.error}
    return {"method": step.method.name, "request": step.request, **outcome}
