"""The forms of CloudEvents 1.0 over HTTP: one in its headers (binary), one or several in JSON (structured, batch)."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from gateway.calls import refusals
from gateway.cloudevents.events import CloudEvent, DuplicateKey, checked, exact_json, structured
from gateway.transcoding.duplicates import TWICE
from gateway.transcoding.problems import Violation

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"
PREFIX = "ce-"
MAX_VALUES = 20_000  # of one event


def read_events(headers: Mapping[str, str], body: bytes, most: int) -> tuple[Iterable[CloudEvent], bool]:
    """The events of a request, each made when it is taken, and whether they are a batch.

    most: events of a batch. Raises Refusal.
    """
    kind, _, parameters = headers.get("Content-Type", "").partition(";")
    kind = kind.strip().lower()
    if "charset" in parameters.lower() and "utf-8" not in parameters.lower():
        raise refusals.malformed("send CloudEvents in UTF-8", http_code=415)
    if kind == BATCH:
        events = parse_json(body)
        if type(events) is not list:
            raise refusals.malformed(f"the body of {BATCH} is a list of events")
        if len(events) > most:  # before any work on one of them: a body has space for a million bad ones
            raise refusals.too_many_events(len(events), most)
        return map(structured, events), True
    # Before it is parsed: a body has space for a million values, which take seconds.
    if body.count(b",") > MAX_VALUES:
        raise refusals.invalid_fields([Violation("", f"the event has more than {MAX_VALUES:,} values: send less")])
    if kind == STRUCTURED:
        return [structured(parse_json(body))], False
    if any(name.lower().startswith(PREFIX) for name in headers):
        return [_binary(headers, kind, body)], False
    raise refusals.malformed(
        f"this is no CloudEvent: send {STRUCTURED}, {BATCH}, or the attributes in headers such as ce-id",
        http_code=415,
        headers={"Accept": f"{STRUCTURED}, {BATCH}, application/json"},
    )


def parse_json(body: bytes, path: str = "") -> Any:
    """The JSON value of a body, with exact decimals. path: of the value in the event. Raises Refusal."""
    try:
        return exact_json(body)
    except DuplicateKey as error:
        at = f"{path}{'.' if path and not error.path.startswith('[') else ''}{error.path}"
        raise refusals.invalid_fields([Violation(at, TWICE)]) from None
    except (ValueError, RecursionError) as error:
        raise refusals.malformed(f"the body is not JSON: {str(error)[:200]}") from None


def _binary(headers: Mapping[str, str], kind: str, body: bytes) -> CloudEvent:
    problems: list[Violation] = []
    attributes: dict[str, Any] = {}
    for name, value in headers.items():
        lower = name.lower()
        if lower.startswith(PREFIX):
            if lower[len(PREFIX) :] in attributes:
                problems.append(Violation(lower[len(PREFIX) :], "its header is there twice"))
            attributes[lower[len(PREFIX) :]] = _text_of_header(value)
    data = None
    if body:
        if kind != "application/json" and not kind.endswith("+json"):
            problems.append(
                Violation("datacontenttype", f"it is {kind[:80] or 'unset'}; send data as application/json")
            )
        else:
            data = parse_json(body, "data")
    return checked(attributes, data, problems)


def _text_of_header(value: str) -> str:
    """The text of an attribute: quotes around it and percent-encoding are taken off, as the binding to HTTP says."""
    if len(value) >= 2 and value.startswith('"') and value.endswith('"'):
        value = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return unquote(value)
