"""What a route of Envoy says about the usage of its requests: the reading of context_extensions and of headers."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from google.protobuf import duration_pb2

from generated.tidemark.v1 import decision_pb2, requested_usage_pb2
from generated.tidemark.v1 import limit_service_pb2 as messages
from server.calls.validation import Violations

SETTINGS = "context_extensions"
PROPERTY = "property."
_NAMES = frozenset(
    {
        *("mode", "metric_id", "quantity", "cost", "currency"),
        *("customer_id_header", "reservation_id_header", "ttl", "overage_policy"),
    }
)
_RESERVATION_ONLY = ("reservation_id_header", "ttl")
_POLICY = "USAGE_OVERAGE_POLICY_"

DEFAULT_QUANTITY = "1"
DEFAULT_RESERVATION_HEADER = "x-request-id"  # Envoy makes one for each request


class Mode(StrEnum):
    """What a route asks for: an answer, or a reservation that the application behind Envoy settles."""

    CHECK = "CHECK"
    RESERVE = "RESERVE"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one request asks of LimitService."""

    message: messages.CheckUsageRequest | messages.ReserveUsageRequest
    customer_id: str
    customer_header: str
    reservation_header: str

    def source_of(self, path: str) -> tuple[str, bool]:
        """What a field of the message was read from, and whether that is the request itself and not its route."""
        match path:
            case "usage.customer_id":
                return f"the header {self.customer_header}", True
            case "reservation_id":
                return f"the header {self.reservation_header}", True
        name = path.removeprefix("usage.")
        return f"{SETTINGS}.{name}", False


def read_wanted(violations: Violations, settings: Mapping[str, str], headers: Mapping[str, str]) -> Wanted:
    """The call of LimitService that a request stands for. A violation is a fault of the route.

    headers: by name in lower case. A header that the request does not have is empty; the call is refused for that.
    """
    for name in sorted(settings):
        if name not in _NAMES and not name.startswith(PROPERTY):
            violations.add(f"{SETTINGS}.{name}", "there is no such setting")
    mode = _read_mode(violations, settings)
    customer_header = _read_header(violations, settings, "customer_id_header", "")
    usage = requested_usage_pb2.RequestedUsage(
        customer_id=headers.get(customer_header, ""),
        metric_id=settings.get("metric_id", ""),
        quantity=settings.get("quantity", DEFAULT_QUANTITY),
        cost=settings.get("cost", ""),
        currency=settings.get("currency", ""),
        properties={
            name.removeprefix(PROPERTY): value for name, value in settings.items() if name.startswith(PROPERTY)
        },
    )
    policy = _read_policy(violations, settings)
    if mode is Mode.CHECK:
        for name in _RESERVATION_ONLY:
            if name in settings:
                violations.add(f"{SETTINGS}.{name}", "it is only for mode RESERVE")
        check = messages.CheckUsageRequest(usage=usage, overage_policy=policy)
        return Wanted(check, usage.customer_id, customer_header, "")
    reservation_header = _read_header(violations, settings, "reservation_id_header", DEFAULT_RESERVATION_HEADER)
    reserve = messages.ReserveUsageRequest(
        reservation_id=headers.get(reservation_header, ""), usage=usage, overage_policy=policy
    )
    if "ttl" in settings:
        reserve.ttl.CopyFrom(_read_ttl(violations, settings["ttl"]))
    return Wanted(reserve, usage.customer_id, customer_header, reservation_header)


def _read_mode(violations: Violations, settings: Mapping[str, str]) -> Mode:
    try:
        return Mode(settings.get("mode", ""))
    except ValueError:
        violations.add(f"{SETTINGS}.mode", "it must be CHECK or RESERVE")
        return Mode.CHECK if not settings.keys() & set(_RESERVATION_ONLY) else Mode.RESERVE


def _read_header(violations: Violations, settings: Mapping[str, str], name: str, default: str) -> str:
    """The name of a header, in lower case as Envoy has it."""
    header = settings.get(name, default).lower()
    if not header:
        violations.add(f"{SETTINGS}.{name}", "it is required: the name of a header of the request")
    return header


def _read_policy(violations: Violations, settings: Mapping[str, str]) -> decision_pb2.UsageOveragePolicy.ValueType:
    if (name := settings.get("overage_policy")) is None:
        return decision_pb2.USAGE_OVERAGE_POLICY_UNSPECIFIED
    if name in ("REJECT", "CAP", "OVERFLOW"):
        return decision_pb2.UsageOveragePolicy.Value(_POLICY + name)
    violations.add(f"{SETTINGS}.overage_policy", "it must be REJECT, CAP or OVERFLOW")
    return decision_pb2.USAGE_OVERAGE_POLICY_UNSPECIFIED


def _read_ttl(violations: Violations, text: str) -> duration_pb2.Duration:
    ttl = duration_pb2.Duration(seconds=1)
    try:
        ttl.FromJsonString(text)
    except ValueError:
        violations.add(f"{SETTINGS}.ttl", 'it must be seconds with an "s", such as 30s')
    return ttl
