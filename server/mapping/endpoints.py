"""Endpoints as messages of the contract, and the checks of what callers want them to be."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from evaluator.amounts import format_decimal
from evaluator.notifications import EVENT_TYPES
from generated.tidemark.v1 import (
    condition_pb2,
    endpoint_pb2,
)
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    RotateSecretRequest,
    UpdateEndpointRequest,
)
from server.calls.validation import Violations, to_timestamp
from server.mapping.alerts import read_condition_types
from store.endpoints.rows import DEFAULT_MAX_IN_FLIGHT, Endpoint, Settings
from store.endpoints.secrets import SigningKey
from webhooks.headers import is_reserved
from webhooks.operator_events import OperatorEventType
from webhooks.signing_keys import Scheme
from webhooks.url_policy import UrlPolicy, UrlRefused

MAX_METADATA = 50  # entries
MAX_METADATA_KEY = 64  # characters
MAX_METADATA_VALUE = 512  # characters
MAX_HEADERS = 20
MAX_HEADER_NAME = 64  # characters
MAX_HEADER_VALUE = 1_024  # characters
MAX_USERNAME = 256  # characters
MAX_PASSWORD = 1_024  # characters
MAX_TOKEN = 4_096  # characters
MIN_RATE = Decimal("0.01")  # attempts a second
MAX_RATE = Decimal(10_000)
MAX_IN_FLIGHT = 64
MAX_GRACE = timedelta(days=7)
DEFAULT_GRACE = timedelta(hours=24)

ALL_EVENT_TYPES = (*EVENT_TYPES, *OperatorEventType)

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")

_SCHEMES: Mapping[endpoint_pb2.SignatureScheme.ValueType, Scheme] = {
    endpoint_pb2.SIGNATURE_SCHEME_HMAC_SHA256: Scheme.HMAC_SHA256,
    endpoint_pb2.SIGNATURE_SCHEME_ED25519: Scheme.ED25519,
}
_SCHEME_NUMBERS = {scheme: number for number, scheme in _SCHEMES.items()}

# The fields of UpdateEndpointRequest that a mask may name: those of Settings.
FIELDS = (
    "url",
    "description",
    "event_types",
    "condition_types",
    "metadata",
    "headers",
    "credentials",
    "rate_per_second",
    "max_in_flight",
)


def read_new_settings(violations: Violations, request: CreateEndpointRequest, policy: UrlPolicy) -> Settings:
    """The settings of a new endpoint."""
    return _read_settings(violations, request, policy, FIELDS)


def read_update(
    violations: Violations, request: UpdateEndpointRequest, policy: UrlPolicy
) -> tuple[Settings, tuple[str, ...]]:
    """What an update asks for, and which fields of it count."""
    paths = list(dict.fromkeys(request.update_mask.paths))
    if not paths:
        violations.add("update_mask", f'it is required: name the fields to replace, or "*" for {", ".join(FIELDS)}')
    for path in paths:
        if path not in (*FIELDS, "*"):
            violations.add("update_mask", f"{path[:64]!r} cannot be replaced; there are {', '.join(FIELDS)}")
    fields = FIELDS if "*" in paths else tuple(field for field in FIELDS if field in paths)
    for descriptor, _ in request.ListFields():
        if descriptor.name in FIELDS and descriptor.name not in fields:
            violations.add(descriptor.name, "it is set, but update_mask does not name it")
    return _read_settings(violations, request, policy, fields), fields


def read_scheme(violations: Violations, scheme: endpoint_pb2.SignatureScheme.ValueType) -> Scheme | None:
    """A scheme of signatures; None where none is named."""
    if scheme == endpoint_pb2.SIGNATURE_SCHEME_UNSPECIFIED:
        return None
    if scheme not in _SCHEMES:
        violations.add("signature_scheme", f"there is no scheme {scheme}")
    return _SCHEMES.get(scheme)


def read_grace(violations: Violations, request: RotateSecretRequest) -> timedelta:
    """How long the secret before the new one signs, too."""
    if not request.HasField("grace"):
        return DEFAULT_GRACE
    seconds, nanos = request.grace.seconds, request.grace.nanos
    longest = int(MAX_GRACE.total_seconds())
    if seconds < 0 or nanos < 0 or nanos > 999_999_999 or (seconds, nanos) > (longest, 0):
        violations.add("grace", f"it lies between 0 and {MAX_GRACE.days} days")
        return DEFAULT_GRACE
    return timedelta(seconds=seconds, microseconds=nanos // 1000)


def _read_settings(
    violations: Violations,
    request: CreateEndpointRequest | UpdateEndpointRequest,
    policy: UrlPolicy,
    fields: Sequence[str],
) -> Settings:
    """The settings in those fields; the others have their defaults."""
    settings = Settings(url=request.url)
    if "url" in fields:
        try:
            policy.check_url(request.url)
        except UrlRefused as error:
            violations.add("url", f"it {error}")
    if "description" in fields:
        settings = replace(settings, description=violations.text("description", request.description))
    if "event_types" in fields:
        settings = replace(settings, event_types=_read_event_types(violations, request.event_types))
    if "condition_types" in fields:
        types = read_condition_types(violations, "condition_types", request.condition_types)
        settings = replace(settings, condition_types=tuple(dict.fromkeys(types)))
    if "metadata" in fields:
        settings = replace(settings, metadata=_read_metadata(violations, request.metadata))
    if "headers" in fields:
        settings = replace(settings, headers=_read_headers(violations, request.headers))
    if "credentials" in fields and request.HasField("credentials"):
        settings = replace(settings, credentials=_read_credentials(violations, request.credentials))
    if "rate_per_second" in fields and request.rate_per_second:
        settings = replace(settings, rate_per_second=_read_rate(violations, request.rate_per_second))
    if "max_in_flight" in fields and request.max_in_flight:
        if not 1 <= request.max_in_flight <= MAX_IN_FLIGHT:
            violations.add("max_in_flight", f"it is {request.max_in_flight}; it lies between 1 and {MAX_IN_FLIGHT}")
        settings = replace(settings, max_in_flight=request.max_in_flight or DEFAULT_MAX_IN_FLIGHT)
    return settings


def _read_event_types(violations: Violations, event_types: Sequence[str]) -> tuple[str, ...]:
    for index, event_type in enumerate(event_types):
        if event_type not in ALL_EVENT_TYPES:
            violations.add(f"event_types[{index}]", f"there is no such type; there are {', '.join(ALL_EVENT_TYPES)}")
    return tuple(dict.fromkeys(event_types))


def _read_metadata(violations: Violations, sent: Mapping[str, str]) -> dict[str, str]:
    if len(sent) > MAX_METADATA:
        violations.add("metadata", f"it has {len(sent)} entries; at most {MAX_METADATA} are kept")
    for key in sorted(sent):
        path = f"metadata[{key[:MAX_METADATA_KEY]!r}]"
        if not 1 <= len(key) <= MAX_METADATA_KEY or not key.isprintable():
            violations.add(path, f"a key has 1 to {MAX_METADATA_KEY} printable characters")
        else:
            violations.text(path, sent[key], max_length=MAX_METADATA_VALUE)
    return dict(sent)


def _read_headers(violations: Violations, sent: Mapping[str, str]) -> dict[str, str]:
    if len(sent) > MAX_HEADERS:
        violations.add("headers", f"there are {len(sent)}; at most {MAX_HEADERS} are sent")
    seen: set[str] = set()
    for name in sorted(sent):
        path = f"headers[{name[:MAX_HEADER_NAME]!r}]"
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name) or len(name) > MAX_HEADER_NAME:
            violations.add(path, f"a name has 1 to {MAX_HEADER_NAME} letters, digits, hyphens and the like")
        elif lower == "authorization":
            violations.add(path, "this header cannot be set here: it is what credentials are for")
        elif is_reserved(name):
            violations.add(path, "this header is Tidemark's own and cannot be set")
        elif lower in seen:
            violations.add(path, "it is there twice: upper and lower case make no difference")
        elif not _HEADER_VALUE.fullmatch(sent[name]) or len(sent[name]) > MAX_HEADER_VALUE:
            violations.add(path, f"a value has 1 to {MAX_HEADER_VALUE} ASCII characters and no line breaks")
        seen.add(lower)
    return dict(sent)


def _read_credentials(violations: Violations, sent: endpoint_pb2.EndpointCredentials) -> str | None:
    """The value of the Authorization header. No violation repeats any of a password or a token."""
    match sent.WhichOneof("kind"):
        case "basic":
            username, password = sent.basic.username, sent.basic.password
            if not 1 <= len(username) <= MAX_USERNAME or ":" in username or not username.isprintable():
                violations.add(
                    "credentials.basic.username", f"it has 1 to {MAX_USERNAME} printable characters, and no colon"
                )
            if not 1 <= len(password) <= MAX_PASSWORD or not password.isprintable():
                violations.add("credentials.basic.password", f"it has 1 to {MAX_PASSWORD} printable characters")
            return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        case "bearer":
            token = sent.bearer.token
            if len(token) > MAX_TOKEN or not _TOKEN.fullmatch(token):
                violations.add(
                    "credentials.bearer.token",
                    f"it has 1 to {MAX_TOKEN} letters, digits and - . _ ~ + /, with = only at the end",
                )
            return f"Bearer {token}"
        case _:
            violations.add("credentials", "set basic or bearer, or leave credentials unset")
            return None


def _read_rate(violations: Violations, text: str) -> Decimal:
    rate = violations.decimal("rate_per_second", text)
    fine = MIN_RATE <= rate <= MAX_RATE and rate == rate.quantize(MIN_RATE)
    if not fine and not any(violation.path == "rate_per_second" for violation in violations.found):
        violations.add(
            "rate_per_second", f"it lies between {MIN_RATE} and {MAX_RATE}, with up to 2 digits after the point"
        )
    return rate


def endpoint_message(endpoint: Endpoint, keys: Sequence[SigningKey]) -> endpoint_pb2.Endpoint:
    """An endpoint with the keys that sign now; never with a secret."""
    message = endpoint_pb2.Endpoint(
        endpoint_id=endpoint.endpoint_id,
        url=endpoint.url,
        description=endpoint.description,
        event_types=endpoint.event_types,
        condition_types=[
            condition_pb2.ConditionType.Value(f"CONDITION_TYPE_{name.upper()}") for name in endpoint.condition_types
        ],
        metadata=endpoint.metadata,
        headers=endpoint.headers,
        has_credentials=endpoint.has_credentials,
        rate_per_second="" if endpoint.rate_per_second is None else format_decimal(endpoint.rate_per_second),
        max_in_flight=endpoint.max_in_flight,
        state=endpoint_pb2.EndpointState.Value(f"ENDPOINT_STATE_{endpoint.state}"),
        create_time=to_timestamp(endpoint.create_time),
        health=_health_message(endpoint),
        signing_keys=map(_key_message, keys),
    )
    if endpoint.disable_reason is not None:
        message.disable_reason = endpoint_pb2.DisableReason.Value(f"DISABLE_REASON_{endpoint.disable_reason}")
    if endpoint.update_time is not None:
        message.update_time.CopyFrom(to_timestamp(endpoint.update_time))
    return message


def _health_message(endpoint: Endpoint) -> endpoint_pb2.EndpointHealth:
    health = endpoint_pb2.EndpointHealth(
        failure_count=endpoint.failure_count,
        breaker_state=endpoint_pb2.BreakerState.Value(f"BREAKER_STATE_{endpoint.breaker_state}"),
    )
    if endpoint.last_success_time is not None:
        health.last_success_time.CopyFrom(to_timestamp(endpoint.last_success_time))
    if endpoint.failing_since is not None:
        health.failing_since_time.CopyFrom(to_timestamp(endpoint.failing_since))
    waits = [time for time in (endpoint.not_before, endpoint.breaker_until) if time is not None]
    if waits:
        health.resume_time.CopyFrom(to_timestamp(max(waits)))
    return health


def _key_message(key: SigningKey) -> endpoint_pb2.SigningKey:
    message = endpoint_pb2.SigningKey(
        sequence=key.sequence,
        scheme=_SCHEME_NUMBERS[key.scheme],
        public_key=key.public_key,
        create_time=to_timestamp(key.create_time),
    )
    if key.not_after is not None:
        message.expire_time.CopyFrom(to_timestamp(key.not_after))
    return message
