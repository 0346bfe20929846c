"""Requests that create or update an endpoint: the settings that are read, and all violations in one answer."""

import base64
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from generated.tidemark.v1 import condition_pb2
from generated.tidemark.v1.endpoint_pb2 import (
    SIGNATURE_SCHEME_ED25519,
    BasicCredentials,
    BearerCredentials,
    Endpoint,
    EndpointCredentials,
    EndpointState,
)
from generated.tidemark.v1.event_type_pb2 import (
    EVENT_TYPE_ENDPOINT_FAILING,
    EVENT_TYPE_ENDPOINT_TEST,
    EVENT_TYPE_UNSPECIFIED,
    EventType,
)
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    RotateSecretRequest,
    UpdateEndpointRequest,
)
from server.calls.validation import Violations
from server.mapping.endpoints import FIELDS, read_grace, read_new_endpoint, read_update
from store.endpoints.rows import Settings
from webhooks.signing_keys import SECRET_PREFIX
from webhooks.url_policy import UrlPolicy

URL = "https://hooks.example.com/tidemark"
POLICY = UrlPolicy(False, ())


def paths_of(violations: Violations) -> list[str]:
    return [violation.path for violation in violations.found]


def update(*paths: str, values: Endpoint | None = None) -> UpdateEndpointRequest:
    sent = Endpoint(endpoint_id="whe_1")
    sent.MergeFrom(values or Endpoint())
    return UpdateEndpointRequest(endpoint=sent, update_mask=FieldMask(paths=paths))


def test_the_fields_of_an_update_are_the_settings() -> None:
    assert set(FIELDS) == {*Settings.__dataclass_fields__, "state"}
    assert set(FIELDS) <= set(Endpoint.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    ("wrong", "paths"),
    [
        (
            Endpoint(event_types=[EVENT_TYPE_ENDPOINT_FAILING, EVENT_TYPE_UNSPECIFIED, EVENT_TYPE_ENDPOINT_TEST]),
            ["event_types[1]", "event_types[2]"],
        ),
        (Endpoint(event_types=[EventType.ValueType(77)]), ["event_types[0]"]),
        (Endpoint(condition_types=[condition_pb2.CONDITION_TYPE_UNSPECIFIED]), ["condition_types[0]"]),
        (Endpoint(labels={"": "x", "a" * 64: "x"}), ["labels['']", f"labels['{'a' * 63}']"]),
        (
            Endpoint(labels={"A": "", "_a": "", "a-": "", "é": ""}),
            ["labels['A']", "labels['_a']", "labels['a-']", "labels['é']"],
        ),
        (Endpoint(labels={"a": "x" * 257, "b": "x\n"}), ["labels['a']", "labels['b']"]),
        (Endpoint(labels={str(number): "" for number in range(65)}), ["labels"]),
        (Endpoint(state=EndpointState.ValueType(7)), ["state"]),
        (Endpoint(headers={str(number): "x" for number in range(21)}), ["headers"]),
        (Endpoint(headers={"Host": "x"}), ["headers['Host']"]),
        (Endpoint(headers={"Webhook-Id": "x"}), ["headers['Webhook-Id']"]),
        (Endpoint(headers={"content-LENGTH": "1"}), ["headers['content-LENGTH']"]),
        (Endpoint(headers={"Authorization": "x"}), ["headers['Authorization']"]),
        (Endpoint(headers={"Transfer-Encoding": "chunked"}), ["headers['Transfer-Encoding']"]),
        (Endpoint(headers={"X-A": "1\r\nHost: evil"}), ["headers['X-A']"]),
        (Endpoint(headers={"X-A": "1\n"}), ["headers['X-A']"]),
        (Endpoint(headers={"X-A\r\nHost": "1"}), ["headers['X-A\\r\\nHost']"]),
        (Endpoint(headers={"X-A": ""}), ["headers['X-A']"]),
        (Endpoint(headers={"X-A": "é"}), ["headers['X-A']"]),
        (Endpoint(headers={"X-A": "x" * 1025}), ["headers['X-A']"]),
        (Endpoint(headers={"X A": "1"}), ["headers['X A']"]),
        (Endpoint(headers={"X-A": "1", "x-a": "2"}), ["headers['x-a']"]),
        (Endpoint(credentials=EndpointCredentials()), ["credentials"]),
        (
            Endpoint(credentials=EndpointCredentials(basic=BasicCredentials(username="a:b"))),
            ["credentials.basic.username", "credentials.basic.password"],
        ),
        (
            Endpoint(credentials=EndpointCredentials(bearer=BearerCredentials(token="a b"))),
            ["credentials.bearer.token"],
        ),
        (Endpoint(rate_per_second="0"), ["rate_per_second"]),
        (Endpoint(rate_per_second="0.001"), ["rate_per_second"]),
        (Endpoint(rate_per_second="1e3"), ["rate_per_second"]),
        (Endpoint(rate_per_second="10000.01"), ["rate_per_second"]),
        (Endpoint(max_in_flight=-1), ["max_in_flight"]),
        (Endpoint(max_in_flight=65), ["max_in_flight"]),
    ],
)
def test_an_invalid_setting_of_a_new_endpoint_is_named(wrong: Endpoint, paths: list[str]) -> None:
    wrong.url = URL
    violations = Violations()
    read_new_endpoint(violations, CreateEndpointRequest(endpoint=wrong), POLICY)
    assert paths_of(violations) == [f"endpoint.{path}" for path in paths]


def test_all_violations_of_an_endpoint_are_in_one_answer() -> None:
    violations = Violations()
    wrong = Endpoint(
        url="http://10.0.0.1",
        event_types=[EVENT_TYPE_UNSPECIFIED],
        headers={"Host": "x"},
        rate_per_second="x",
        max_in_flight=-1,
    )
    read_new_endpoint(violations, CreateEndpointRequest(endpoint=wrong, secret="x"), POLICY)
    assert paths_of(violations) == [
        "endpoint.url",
        "endpoint.event_types[0]",
        "endpoint.headers['Host']",
        "endpoint.rate_per_second",
        "endpoint.max_in_flight",
        "secret",
    ]


def own(length: int) -> str:
    """A secret of that many bytes."""
    return SECRET_PREFIX + base64.b64encode(bytes(range(length))).decode()


@pytest.mark.parametrize(
    "secret",
    [own(23), own(65), "whsec_", "whsec_hush!hush!hush!hush!hush!hush!hush!", own(32).removeprefix(SECRET_PREFIX)],
)
def test_a_malformed_secret_is_named_and_not_repeated(secret: str) -> None:
    violations = Violations()
    read_new_endpoint(violations, CreateEndpointRequest(endpoint=Endpoint(url=URL), secret=secret), POLICY)
    assert paths_of(violations) == ["secret"]
    assert secret.removeprefix(SECRET_PREFIX)[:8] not in violations.found[0].description or not secret[6:]


@pytest.mark.parametrize("length", [24, 64])
def test_a_secret_of_the_callers_own_is_taken(length: int) -> None:
    violations = Violations()
    request = CreateEndpointRequest(endpoint=Endpoint(url=URL), secret=own(length))
    assert read_new_endpoint(violations, request, POLICY).signing_key == own(length)
    assert paths_of(violations) == []


def test_a_secret_of_the_callers_own_is_refused_for_ed25519() -> None:
    violations = Violations()
    request = CreateEndpointRequest(
        endpoint=Endpoint(url=URL), secret=own(32), signature_scheme=SIGNATURE_SCHEME_ED25519
    )
    read_new_endpoint(violations, request, POLICY)
    assert paths_of(violations) == ["secret"]


@pytest.mark.parametrize(
    ("request_", "paths"),
    [
        (UpdateEndpointRequest(endpoint=Endpoint(url=URL)), ["endpoint.endpoint_id"]),
        (update("health"), ["update_mask.paths[0]"]),
        (update("url", "labels.team", values=Endpoint(url=URL)), ["update_mask.paths[1]"]),
        (update("url"), ["endpoint.url"]),
        (update("*"), ["endpoint.url"]),
        (update("*", "url", values=Endpoint(url=URL)), ["update_mask"]),
        (update("state"), ["endpoint.state"]),
        (update(values=Endpoint(state=EndpointState.ValueType(7))), ["endpoint.state"]),
        (update("url", values=Endpoint(url="https://10.0.0.1/")), ["endpoint.url"]),
        (update("max_in_flight", values=Endpoint(max_in_flight=99)), ["endpoint.max_in_flight"]),
    ],
)
def test_an_invalid_setting_of_an_update_is_named(request_: UpdateEndpointRequest, paths: list[str]) -> None:
    violations = Violations()
    read_update(violations, request_, POLICY)
    assert paths_of(violations) == paths


@pytest.mark.parametrize(
    "grace",
    [
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(seconds=7 * 86_400, nanos=1),
        Duration(seconds=1, nanos=2_000_000_000),
        Duration(seconds=2**62),
    ],
)
def test_a_grace_is_between_0_and_a_week(grace: Duration) -> None:
    violations = Violations()
    read_grace(violations, RotateSecretRequest(grace=grace))
    assert paths_of(violations) == ["grace"]


def test_a_grace_is_a_day_by_default() -> None:
    violations = Violations()
    assert read_grace(violations, RotateSecretRequest()) == timedelta(days=1)
    assert read_grace(violations, RotateSecretRequest(grace=Duration())) == timedelta(0)
    assert read_grace(violations, RotateSecretRequest(grace=Duration(seconds=604_800))) == timedelta(days=7)
    assert paths_of(violations) == []
