"""Requests that create or update an endpoint: the settings that are read, and all violations in one answer."""

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from generated.tidemark.v1 import condition_pb2
from generated.tidemark.v1.endpoint_pb2 import BasicCredentials, BearerCredentials, EndpointCredentials
from generated.tidemark.v1.webhook_service_pb2 import (
    CreateEndpointRequest,
    RotateSecretRequest,
    UpdateEndpointRequest,
)
from server.calls.validation import Violations
from server.mapping.endpoints import FIELDS, read_grace, read_new_settings, read_update
from store.endpoints.rows import Settings
from webhooks.url_policy import UrlPolicy

URL = "https://hooks.example.com/tidemark"
POLICY = UrlPolicy(False, ())


def paths_of(violations: Violations) -> list[str]:
    return [violation.path for violation in violations.found]


def update(*paths: str, request: UpdateEndpointRequest | None = None) -> UpdateEndpointRequest:
    whole = UpdateEndpointRequest(update_mask=FieldMask(paths=paths))
    whole.MergeFrom(request or UpdateEndpointRequest())
    return whole


def test_the_fields_of_an_update_are_the_settings() -> None:
    assert set(FIELDS) == set(Settings.__dataclass_fields__)
    for message in (CreateEndpointRequest, UpdateEndpointRequest):
        assert set(FIELDS) <= set(message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    ("wrong", "paths"),
    [
        (CreateEndpointRequest(event_types=["endpoint.exploded"]), ["event_types[0]"]),
        (CreateEndpointRequest(condition_types=[condition_pb2.CONDITION_TYPE_UNSPECIFIED]), ["condition_types[0]"]),
        (CreateEndpointRequest(metadata={"": "x", "a" * 65: "x"}), ["metadata['']", f"metadata['{'a' * 64}']"]),
        (CreateEndpointRequest(metadata={"a": "x" * 513, "b": "x\n"}), ["metadata['a']", "metadata['b']"]),
        (CreateEndpointRequest(metadata={str(number): "" for number in range(51)}), ["metadata"]),
        (CreateEndpointRequest(headers={str(number): "x" for number in range(21)}), ["headers"]),
        (CreateEndpointRequest(headers={"Host": "x"}), ["headers['Host']"]),
        (CreateEndpointRequest(headers={"Webhook-Id": "x"}), ["headers['Webhook-Id']"]),
        (CreateEndpointRequest(headers={"content-LENGTH": "1"}), ["headers['content-LENGTH']"]),
        (CreateEndpointRequest(headers={"Authorization": "x"}), ["headers['Authorization']"]),
        (CreateEndpointRequest(headers={"Transfer-Encoding": "chunked"}), ["headers['Transfer-Encoding']"]),
        (CreateEndpointRequest(headers={"X-A": "1\r\nHost: evil"}), ["headers['X-A']"]),
        (CreateEndpointRequest(headers={"X-A": "1\n"}), ["headers['X-A']"]),
        (CreateEndpointRequest(headers={"X-A\r\nHost": "1"}), ["headers['X-A\\r\\nHost']"]),
        (CreateEndpointRequest(headers={"X-A": ""}), ["headers['X-A']"]),
        (CreateEndpointRequest(headers={"X-A": "é"}), ["headers['X-A']"]),
        (CreateEndpointRequest(headers={"X-A": "x" * 1025}), ["headers['X-A']"]),
        (CreateEndpointRequest(headers={"X A": "1"}), ["headers['X A']"]),
        (CreateEndpointRequest(headers={"X-A": "1", "x-a": "2"}), ["headers['x-a']"]),
        (CreateEndpointRequest(credentials=EndpointCredentials()), ["credentials"]),
        (
            CreateEndpointRequest(credentials=EndpointCredentials(basic=BasicCredentials(username="a:b"))),
            ["credentials.basic.username", "credentials.basic.password"],
        ),
        (
            CreateEndpointRequest(credentials=EndpointCredentials(bearer=BearerCredentials(token="a b"))),
            ["credentials.bearer.token"],
        ),
        (CreateEndpointRequest(rate_per_second="0"), ["rate_per_second"]),
        (CreateEndpointRequest(rate_per_second="0.001"), ["rate_per_second"]),
        (CreateEndpointRequest(rate_per_second="1e3"), ["rate_per_second"]),
        (CreateEndpointRequest(rate_per_second="10000.01"), ["rate_per_second"]),
        (CreateEndpointRequest(max_in_flight=-1), ["max_in_flight"]),
        (CreateEndpointRequest(max_in_flight=65), ["max_in_flight"]),
    ],
)
def test_an_invalid_setting_of_a_new_endpoint_is_named(wrong: CreateEndpointRequest, paths: list[str]) -> None:
    wrong.url = URL
    violations = Violations()
    read_new_settings(violations, wrong, POLICY)
    assert paths_of(violations) == paths


def test_all_violations_of_an_endpoint_are_in_one_answer() -> None:
    violations = Violations()
    wrong = CreateEndpointRequest(
        url="http://10.0.0.1", event_types=["x"], headers={"Host": "x"}, rate_per_second="x", max_in_flight=-1
    )
    read_new_settings(violations, wrong, POLICY)
    assert paths_of(violations) == ["url", "event_types[0]", "headers['Host']", "rate_per_second", "max_in_flight"]


@pytest.mark.parametrize(
    ("request_", "paths"),
    [
        (UpdateEndpointRequest(), ["update_mask"]),
        (update("state"), ["update_mask"]),
        (update("metadata.team"), ["update_mask"]),
        (update("url"), ["url"]),
        (update("*"), ["url"]),
        (update("url", request=UpdateEndpointRequest(url="https://10.0.0.1/")), ["url"]),
        (update("metadata", request=UpdateEndpointRequest(description="x")), ["description"]),
        (update("max_in_flight", request=UpdateEndpointRequest(max_in_flight=99)), ["max_in_flight"]),
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
