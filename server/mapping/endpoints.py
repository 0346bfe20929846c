"""Endpoints as messages of the contract, and the requests that create and change them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from evaluator.amounts import format_decimal
from generated.tidemark.v1 import (
    condition_pb2,
    endpoint_pb2,
)
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    ListEndpointsRequest,
    RotateSecretRequest,
    UpdateEndpointRequest,
)
from server.calls.validation import Violations, to_timestamp
from server.mapping.endpoint_settings import PATH, SETTINGS, read_settings
from server.mapping.event_type_numbers import NUMBERS
from server.mapping.labels import read_labels
from store.endpoints.endpoints import EndpointFilter, NewEndpoint
from store.endpoints.rows import Endpoint, EndpointState, Settings
from store.endpoints.secrets import SigningKey
from webhooks.signing_keys import MalformedKey, Scheme, new_signing_key, signing_secret
from webhooks.url_policy import UrlPolicy

MAX_GRACE = timedelta(days=7)
DEFAULT_GRACE = timedelta(hours=24)

_SCHEMES: Mapping[endpoint_pb2.SignatureScheme.ValueType, Scheme] = {
    endpoint_pb2.SIGNATURE_SCHEME_HMAC_SHA256: Scheme.HMAC_SHA256,
    endpoint_pb2.SIGNATURE_SCHEME_ED25519: Scheme.ED25519,
}
_SCHEME_NUMBERS = {scheme: number for number, scheme in _SCHEMES.items()}

_STATE_NUMBERS = {state: endpoint_pb2.EndpointState.Value(f"ENDPOINT_STATE_{state}") for state in EndpointState}
_STATES = {number: state for state, number in _STATE_NUMBERS.items()}

STATE = "state"
# The fields of Endpoint that callers set: those that update_mask may name.
FIELDS = (*SETTINGS, STATE)


@dataclass(frozen=True)
class EndpointUpdate:
    """What an update changes. fields: of `settings`, those that are replaced. state: None leaves it as it is."""

    endpoint_id: str
    settings: Settings
    fields: tuple[str, ...]
    state: EndpointState | None


def read_new_endpoint(violations: Violations, request: CreateEndpointRequest, policy: UrlPolicy) -> NewEndpoint:
    """The endpoint to create, with its signing key. Output-only fields are ignored.

    Raises InvalidArgument when the request holds no endpoint.
    """
    if not request.HasField("endpoint"):
        violations.add(PATH, "it is required")
        violations.raise_if_any()
    settings = read_settings(violations, request.endpoint, policy, SETTINGS)
    state = _read_state(violations, request.endpoint)
    return NewEndpoint(settings, _read_signing_key(violations, request), state or EndpointState.ENABLED)


def _read_signing_key(violations: Violations, request: CreateEndpointRequest) -> str:
    """The caller's own key, or a new random one. No violation repeats any of the key."""
    scheme = read_scheme(violations, request.signature_scheme)
    if not request.secret:
        return new_signing_key(scheme or Scheme.HMAC_SHA256)
    if scheme is Scheme.ED25519:
        violations.add("secret", "with SIGNATURE_SCHEME_ED25519 Tidemark makes the private key: leave secret unset")
    try:
        signing_secret(request.secret)
    except MalformedKey as error:
        violations.add("secret", str(error))
    return request.secret


def read_update(violations: Violations, request: UpdateEndpointRequest, policy: UrlPolicy) -> EndpointUpdate:
    """The changes that an update asks for. Output-only fields are ignored.

    Raises InvalidArgument when the request holds no endpoint.
    """
    if not request.HasField("endpoint"):
        violations.add(PATH, "it is required")
        violations.raise_if_any()
    endpoint_id = violations.identifier(f"{PATH}.endpoint_id", request.endpoint.endpoint_id)
    sent, masked = request.endpoint, list(request.update_mask.paths)
    whole = "*" in masked
    if whole and len(masked) > 1:
        violations.add("update_mask", "* stands for every path: give it alone")
    for index, path in enumerate(masked):
        if path != "*" and path not in FIELDS:
            violations.add(
                f"update_mask.paths[{index}]", f"{path[:64]!r} cannot be changed: give {', '.join(FIELDS)}, or *"
            )
    named = masked or [descriptor.name for descriptor, _ in sent.ListFields()]
    fields = FIELDS if whole else tuple(field for field in FIELDS if field in named)
    state = _read_state(violations, sent) if STATE in fields else None
    if STATE in masked and sent.state == endpoint_pb2.ENDPOINT_STATE_UNSPECIFIED:
        violations.add(f"{PATH}.{STATE}", "it is required: update_mask names it")
    settings = tuple(field for field in fields if field != STATE)
    return EndpointUpdate(endpoint_id, read_settings(violations, sent, policy, settings), settings, state)


def read_filter(violations: Violations, request: ListEndpointsRequest) -> EndpointFilter:
    """Which endpoints a list is narrowed to."""
    for index, number in enumerate(request.states):
        if number not in _STATES:
            violations.add(f"states[{index}]", f"{number} is no state of an endpoint")
    has_start, has_end = request.HasField("start_time"), request.HasField("end_time")
    return EndpointFilter(
        states=tuple(dict.fromkeys(_STATES[number] for number in request.states if number in _STATES)),
        labels=read_labels(violations, "labels", request.labels),
        display_name_prefix=violations.text("display_name_prefix", request.display_name_prefix),
        start_time=violations.time("start_time", request.start_time) if has_start else None,
        end_time=violations.time("end_time", request.end_time) if has_end else None,
    )


def canonical(filter_: EndpointFilter) -> tuple[str, ...]:
    """The filter as texts that are equal for equal filters, in whatever order their values are."""
    return (
        ",".join(sorted(set(filter_.states))),
        "\n".join(f"{key}={value}" for key, value in sorted(filter_.labels.items())),
        filter_.display_name_prefix,
        str(filter_.start_time or ""),
        str(filter_.end_time or ""),
    )


def _read_state(violations: Violations, sent: endpoint_pb2.Endpoint) -> EndpointState | None:
    """The state that a request sets; None where it sets none."""
    if sent.state == endpoint_pb2.ENDPOINT_STATE_UNSPECIFIED:
        return None
    if sent.state not in _STATES:
        violations.add(f"{PATH}.{STATE}", f"{sent.state} is no state of an endpoint")
    return _STATES.get(sent.state)


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


def endpoint_message(endpoint: Endpoint, keys: Sequence[SigningKey]) -> endpoint_pb2.Endpoint:
    """An endpoint with the keys that sign now; never with a secret."""
    message = endpoint_pb2.Endpoint(
        endpoint_id=endpoint.endpoint_id,
        url=endpoint.url,
        display_name=endpoint.display_name,
        labels=endpoint.labels,
        event_types=map(NUMBERS.__getitem__, endpoint.event_types),
        condition_types=[
            condition_pb2.ConditionType.Value(f"CONDITION_TYPE_{name.upper()}") for name in endpoint.condition_types
        ],
        headers=endpoint.headers,
        has_credentials=endpoint.has_credentials,
        rate_per_second="" if endpoint.rate_per_second is None else format_decimal(endpoint.rate_per_second),
        max_in_flight=endpoint.max_in_flight,
        state=_STATE_NUMBERS[endpoint.state],
        disable_reason=endpoint_pb2.DisableReason.Value(f"DISABLE_REASON_{endpoint.disable_reason or 'NONE'}"),
        create_time=to_timestamp(endpoint.create_time),
        health=_health_message(endpoint),
        signing_keys=map(_key_message, keys),
    )
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
