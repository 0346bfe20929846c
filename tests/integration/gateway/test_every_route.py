"""Every HTTP route of the contract: it reaches its method with the whole request, and the answer comes back whole."""

import json
import random

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message_factory import GetMessageClass

from gateway.transcoding.routes import routes
from proto.documents.contract import METHODS, Binding, bindings
from tests.support.gateway.bindings import CARRIED, fitting, http_request
from tests.support.gateway.echo import Echo
from tests.support.gateway.http import HttpClient
from tests.support.gateway.random_messages import random_message

EXAMPLES = 6  # random requests of each route


def named(value: object) -> str:
    return getattr(value, "name", getattr(value, "path", ""))


def test_the_routes_are_those_of_the_contract() -> None:
    stated = {(method.name, binding.verb.upper(), binding.path) for method, binding in CARRIED}
    assert {(route.method.name, route.verb, route.template) for route in routes()} == stated
    assert {method.name for method in METHODS if not method.client_streaming} == {name for name, _, _ in stated}


@pytest.mark.parametrize(("method", "binding"), CARRIED, ids=named)
async def test_a_route_carries_requests_and_answers(
    method: MethodDescriptor, binding: Binding, echo: Echo, http: HttpClient
) -> None:
    draw = random.Random(f"{method.name} {binding.path}")
    for number in range(EXAMPLES):
        request = fitting(method, binding, random_message(method.input_type, draw))
        answer = random_message(method.output_type, draw)
        echo.answers = [answer]
        sent = http_request(method, binding, request, contract_names=number % 2 == 1)
        body = None if sent.body is None else json.dumps(sent.body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        got = await http.send(sent.verb, sent.target, data=body, headers=headers)
        assert got.code == 200, (sent, got.body)
        assert echo.method == f"/{method.containing_service.full_name}/{method.name}"
        assert GetMessageClass(method.input_type).FromString(echo.request) == request, sent
        assert got.json == MessageToDict(answer)
        assert got.headers["Content-Type"] == (
            "application/x-ndjson" if method.server_streaming else "application/json"
        )


@pytest.mark.parametrize(("method", "binding"), CARRIED, ids=named)
async def test_a_route_refuses_what_it_does_not_know(
    method: MethodDescriptor, binding: Binding, echo: Echo, http: HttpClient
) -> None:
    echo.method = ""
    request = fitting(method, binding, GetMessageClass(method.input_type)())
    sent = http_request(method, binding, request)
    parameter = await http.send(sent.verb, f"{sent.target.partition('?')[0]}?no_such_parameter=1", json=sent.body)
    assert (parameter.code, parameter.fields) == (400, ["no_such_parameter"])
    if binding.body:
        field = "noSuchField" if binding.body == "*" else f"{binding.body}.noSuchField"
        unknown = await http.send(sent.verb, sent.target, json={"noSuchField": 1})
        assert (unknown.code, unknown.fields) == (400, [field])
    else:
        with_body = await http.send(sent.verb, sent.target, json={})
        assert with_body.code == 400
    assert echo.method == ""


async def test_every_path_answers_options_and_refuses_other_verbs(http: HttpClient) -> None:
    paths = {binding.path: set[str]() for _, binding in CARRIED}
    for path in paths:
        paths[path] = {one.verb.upper() for _, one in CARRIED if one.path == path}
    for path, verbs in paths.items():
        target = path.replace("{", "").replace("}", "")
        options = await http.send("OPTIONS", target)
        allowed = set(options.headers["Allow"].split(", "))
        assert options.code == 204
        assert verbs <= allowed
        for verb in {"GET", "PUT", "POST", "PATCH", "DELETE", "TRACE"} - allowed:
            refused = await http.send(verb, target)
            assert refused.code == 405, (verb, target)
            assert set(refused.headers["Allow"].split(", ")) == allowed


def test_a_method_with_several_routes_is_in_the_list() -> None:
    several = [method.name for method in METHODS if len(bindings(method)) > 1]
    assert several
