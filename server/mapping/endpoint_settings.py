"""The settings of an endpoint as a caller sends them: checked, and read."""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from evaluator.recharge_notifications import NOTIFICATION_TYPES
from generated.tidemark.v1 import endpoint_pb2
from server.calls.validation import Violations
from server.mapping.alerts import read_condition_types
from server.mapping.event_types import read_event_types
from server.mapping.labels import read_labels
from store.endpoints.rows import DEFAULT_MAX_IN_FLIGHT, Settings
from webhooks.headers import is_reserved
from webhooks.operator_events import OperatorEventType
from webhooks.url_policy import UrlPolicy, UrlRefused

MAX_HEADERS = 20
MAX_HEADER_NAME = 64  # characters
MAX_HEADER_VALUE = 1_024  # characters
MAX_USERNAME = 256  # characters
MAX_PASSWORD = 1_024  # characters
MAX_TOKEN = 4_096  # characters
MIN_RATE = Decimal("0.01")  # attempts a second
MAX_RATE = Decimal(10_000)
MAX_IN_FLIGHT = 64

ALL_EVENT_TYPES = (*NOTIFICATION_TYPES, *OperatorEventType)

PATH = "endpoint"  # of the message in its requests

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


def read_settings(
    violations: Violations, sent: endpoint_pb2.Endpoint, policy: UrlPolicy, fields: Sequence[str]
) -> Settings:
    """The settings of a request: those of `fields` as they are sent, the others with their defaults.

    fields: names of fields of Settings.
    """
    if "url" in fields:
        _check_url(violations, sent.url, policy)
    return Settings(url=sent.url, **{name: _READERS[name](violations, sent) for name in fields if name in _READERS})


def _check_url(violations: Violations, url: str, policy: UrlPolicy) -> None:
    try:
        policy.check_url(url)
    except UrlRefused as error:
        violations.add(f"{PATH}.url", f"it {error}")


def _read_display_name(violations: Violations, sent: endpoint_pb2.Endpoint) -> str:
    return violations.text(f"{PATH}.display_name", sent.display_name)


def _read_labels(violations: Violations, sent: endpoint_pb2.Endpoint) -> dict[str, str]:
    return read_labels(violations, f"{PATH}.labels", sent.labels)


def _read_event_types(violations: Violations, sent: endpoint_pb2.Endpoint) -> tuple[str, ...]:
    return read_event_types(violations, f"{PATH}.event_types", sent.event_types, ALL_EVENT_TYPES)


def _read_condition_types(violations: Violations, sent: endpoint_pb2.Endpoint) -> tuple[str, ...]:
    return read_condition_types(violations, f"{PATH}.condition_types", sent.condition_types)


def _read_headers(violations: Violations, sent: endpoint_pb2.Endpoint) -> dict[str, str]:
    headers: Mapping[str, str] = sent.headers
    if len(headers) > MAX_HEADERS:
        violations.add(f"{PATH}.headers", f"there are {len(headers)}; at most {MAX_HEADERS} are sent")
        return {}
    seen: set[str] = set()
    for name in sorted(headers):
        path = f"{PATH}.headers[{name[:MAX_HEADER_NAME]!r}]"
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name) or len(name) > MAX_HEADER_NAME:
            violations.add(path, f"a name has 1 to {MAX_HEADER_NAME} letters, digits, hyphens and the like")
        elif lower == "authorization":
            violations.add(path, "this header cannot be set here: it is what credentials are for")
        elif is_reserved(name):
            violations.add(path, "this header is Tidemark's own and cannot be set")
        elif lower in seen:
            violations.add(path, "it is there twice: upper and lower case make no difference")
        elif not _HEADER_VALUE.fullmatch(headers[name]) or len(headers[name]) > MAX_HEADER_VALUE:
            violations.add(path, f"a value has 1 to {MAX_HEADER_VALUE} ASCII characters and no line breaks")
        seen.add(lower)
    return dict(headers)


def _read_credentials(violations: Violations, endpoint: endpoint_pb2.Endpoint) -> str | None:
    """The value of the Authorization header. No violation repeats any of a password or a token."""
    if not endpoint.HasField("credentials"):
        return None
    sent, path = endpoint.credentials, f"{PATH}.credentials"
    match sent.WhichOneof("kind"):
        case "basic":
            username, password = sent.basic.username, sent.basic.password
            if not 1 <= len(username) <= MAX_USERNAME or ":" in username or not username.isprintable():
                violations.add(
                    f"{path}.basic.username", f"it has 1 to {MAX_USERNAME} printable characters, and no colon"
                )
            if not 1 <= len(password) <= MAX_PASSWORD or not password.isprintable():
                violations.add(f"{path}.basic.password", f"it has 1 to {MAX_PASSWORD} printable characters")
            return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        case "bearer":
            token = sent.bearer.token
            if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
                violations.add(
                    f"{path}.bearer.token",
                    f"it has 1 to {MAX_TOKEN} letters, digits and - . _ ~ + /, with = only at the end",
                )
            return f"Bearer {token}"
        case _:
            violations.add(path, "set basic or bearer, or leave credentials unset")
            return None


def _read_rate(violations: Violations, sent: endpoint_pb2.Endpoint) -> Decimal | None:
    if not sent.rate_per_second:
        return None
    path = f"{PATH}.rate_per_second"
    rate = violations.decimal(path, sent.rate_per_second)
    fine = MIN_RATE <= rate <= MAX_RATE and rate == rate.quantize(MIN_RATE)
    if not fine and not any(violation.path == path for violation in violations.found):
        violations.add(path, f"it lies between {MIN_RATE} and {MAX_RATE}, with up to 2 digits after the point")
    return rate


def _read_max_in_flight(violations: Violations, sent: endpoint_pb2.Endpoint) -> int:
    if sent.max_in_flight and not 1 <= sent.max_in_flight <= MAX_IN_FLIGHT:
        violations.add(f"{PATH}.max_in_flight", f"it is {sent.max_in_flight}; it lies between 1 and {MAX_IN_FLIGHT}")
    return sent.max_in_flight or DEFAULT_MAX_IN_FLIGHT


# Each setting besides the URL, in the order of its violations.
_READERS: Mapping[str, Callable[[Violations, endpoint_pb2.Endpoint], Any]] = {
    "display_name": _read_display_name,
    "labels": _read_labels,
    "event_types": _read_event_types,
    "condition_types": _read_condition_types,
    "headers": _read_headers,
    "credentials": _read_credentials,
    "rate_per_second": _read_rate,
    "max_in_flight": _read_max_in_flight,
}
SETTINGS = ("url", *_READERS)
