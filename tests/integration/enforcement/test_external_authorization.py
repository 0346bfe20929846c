"""Authorization/Check over the wire: what Envoy sends, and what it gets for each decision and each mistake."""

import json
from typing import Any

import grpc
import pytest

from generated.envoy.service.auth.v3 import external_authorization_pb2 as envoy
from generated.envoy.service.auth.v3 import external_authorization_pb2_grpc
from generated.tidemark.v1 import limit_service_pb2 as messages
from generated.tidemark.v1 import limit_service_pb2_grpc, reservation_pb2
from runtime.clock import ManualClock
from store.identity import keys
from store.identity.keys import KeySettings
from store.identity.roles import Role
from store.postgres.database import Database
from tests.support.databases import NOON
from tests.support.enforcement.gateway import put_limit
from tests.support.server.running import reason_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import DEADLINE, Caller
from tests.support.usage.organizations import create_organization

pytestmark = shares_server

CHECK = {"mode": "CHECK", "metric_id": "calls", "customer_id_header": "X-Customer-Id"}
RESERVE = {**CHECK, "mode": "RESERVE", "ttl": "30s"}
OPEN, SETTLED = reservation_pb2.RESERVATION_STATE_OPEN, reservation_pb2.RESERVATION_STATE_SETTLED


class Envoy:
    """The calls of an Envoy with the caller's key, for requests of acme."""

    def __init__(self, caller: Caller, key: str = "") -> None:
        self.metadata = (("authorization", f"Bearer {key}"),) if key else caller.metadata
        self.stub: Any = external_authorization_pb2_grpc.AuthorizationStub(caller.server.channel)
        self.limits: Any = limit_service_pb2_grpc.LimitServiceStub(caller.server.channel)

    async def ask(
        self, settings: dict[str, str], request_id: str = "r-1", customer: str = "acme", **headers: str
    ) -> envoy.CheckResponse:
        """The answer about one request."""
        sent = {"x-request-id": request_id, "x-customer-id": customer, ":path": "/v1/chat", **headers}
        request = envoy.CheckRequest()
        request.attributes.request.http.headers.update({name: value for name, value in sent.items() if value})
        request.attributes.context_extensions.update(settings)
        answer: envoy.CheckResponse = await self.stub.Check(request, metadata=self.metadata, timeout=DEADLINE)
        assert (answer.status.code == 0) == (answer.WhichOneof("http_response") == "ok_response")
        return answer

    async def settle(self, reservation_id: str, quantity: str) -> None:
        """Settles, as the application behind Envoy does."""
        await self.limits.SettleReservation(
            messages.SettleReservationRequest(customer_id="acme", reservation_id=reservation_id, quantity=quantity),
            metadata=self.metadata,
            timeout=DEADLINE,
        )

    async def state(self, reservation_id: str, customer_id: str = "acme") -> int:
        """The state of a reservation."""
        request = messages.GetReservationRequest(customer_id=customer_id, reservation_id=reservation_id)
        answer = await self.limits.GetReservation(request, metadata=self.metadata, timeout=DEADLINE)
        return int(answer.reservation.state)


def changed(answer: envoy.CheckResponse) -> dict[str, str]:
    """The headers that Envoy sets in a request that may pass; None of them is added to one of the client."""
    assert answer.status.code == 0
    found = {one.header.key: one.header.value for one in answer.ok_response.headers}
    assert all(one.HasField("append") and not one.append.value for one in answer.ok_response.headers)
    # What is not set is removed: the client must not set it.
    assert {*found, *answer.ok_response.headers_to_remove} == {
        *("tidemark-customer-id", "tidemark-reservation-id", "tidemark-granted-quantity", "tidemark-expire-time"),
    }
    return found


def refusal(answer: envoy.CheckResponse) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and body for a client whose request may not pass."""
    denied = answer.denied_response
    headers = {one.header.key: one.header.value for one in denied.headers}
    assert headers.pop("content-type") == "application/json"
    error: dict[str, Any] = json.loads(denied.body)["error"]
    assert error["message"] == answer.status.message
    return denied.status.code, headers, error


@pytest.fixture
async def gate(caller: Caller) -> Envoy:
    """An Envoy, and a limit of 3 calls for acme."""
    await put_limit(caller, "3")
    return Envoy(caller)


async def key_of(database: Database, caller: Caller, *roles: Role, customer_id: str = "") -> str:
    """Another key of the caller's organization."""
    async with database.transaction() as connection:
        created = await keys.create_key(
            connection, caller.organization, NOON, KeySettings(frozenset(roles), customer_id=customer_id)
        )
    return created.key


async def test_check_passes_requests_and_holds_nothing(gate: Envoy) -> None:
    for number in range(5):
        answer = await gate.ask(CHECK, f"r-{number}")
        assert changed(answer) == {"tidemark-customer-id": "acme", "tidemark-granted-quantity": "1"}
    code, _, error = refusal(await gate.ask({**CHECK, "quantity": "4"}))
    assert (code, error["limit"]["remaining"]) == (429, "3")


async def test_reservation_passes_its_id_on_and_is_settled(gate: Envoy) -> None:
    answer = changed(await gate.ask({**RESERVE, "quantity": "2"}))
    assert answer["tidemark-reservation-id"] == "r-1"
    assert answer["tidemark-granted-quantity"] == "2"
    assert answer["tidemark-expire-time"] == "2026-03-15T12:00:30+00:00"
    assert await gate.state("r-1") == OPEN
    # Envoy may ask again about the same request: it is held once.
    assert changed(await gate.ask({**RESERVE, "quantity": "2"})) == answer
    assert refusal(await gate.ask({**RESERVE, "quantity": "2"}, "r-2"))[0] == 429
    await gate.settle("r-1", "1")
    assert await gate.state("r-1") == SETTLED
    assert changed(await gate.ask({**RESERVE, "quantity": "2"}, "r-3"))["tidemark-reservation-id"] == "r-3"


async def test_denial_is_a_429_that_names_the_limit(gate: Envoy) -> None:
    await gate.ask({**RESERVE, "quantity": "3"})
    code, headers, error = refusal(await gate.ask(RESERVE, "r-2"))
    assert (code, headers) == (429, {"retry-after": "1"})
    assert error == {
        "status": "RESOURCE_EXHAUSTED",
        "reason": "LIMIT",
        "message": "the limit limit leaves 0",
        "limit": {
            "limit_id": "limit",
            "customer_id": "acme",
            "metric_id": "calls",
            "amount": "3",
            "remaining": "0",
            "held": "3",
            "reset_time": "2026-04-01T00:00:00+00:00",
        },
    }
    await gate.settle("r-1", "3")
    _, headers, _ = refusal(await gate.ask(RESERVE, "r-3"))
    assert headers == {"retry-after": str(16 * 86_400 + 12 * 3_600)}
    # No time makes it fit.
    code, headers, _ = refusal(await gate.ask({**RESERVE, "quantity": "4"}, "r-4"))
    assert (code, headers) == (429, {})


async def test_policy_of_a_route_caps(gate: Envoy) -> None:
    answer = changed(await gate.ask({**RESERVE, "quantity": "5", "overage_policy": "CAP"}))
    assert answer["tidemark-granted-quantity"] == "3"


async def test_id_of_a_reservation_that_has_ended_does_not_pass_again(gate: Envoy) -> None:
    await gate.ask(RESERVE)
    await gate.settle("r-1", "1")
    code, _, error = refusal(await gate.ask(RESERVE))
    assert (code, error["reason"]) == (409, "RESERVATION_ENDED")
    code, _, error = refusal(await gate.ask({**RESERVE, "quantity": "2"}))
    assert (code, error["reason"]) == (409, "RESERVATION_CONFLICT")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "context_extensions.mode"),
        ({**CHECK, "mode": "check"}, "context_extensions.mode"),
        ({"mode": "CHECK", "metric_id": "calls"}, "context_extensions.customer_id_header"),
        ({**CHECK, "metric_id": ""}, "context_extensions.metric_id"),
        ({**CHECK, "quantity": "-1"}, "context_extensions.quantity"),
        ({**CHECK, "quantity": "many"}, "context_extensions.quantity"),
        ({**CHECK, "currency": "USD"}, "context_extensions.currency"),
        ({**CHECK, "ttl": "30s"}, "context_extensions.ttl"),
        ({**RESERVE, "ttl": "30"}, "context_extensions.ttl"),
        ({**RESERVE, "ttl": "0s"}, "context_extensions.ttl"),
        ({**RESERVE, "ttl": "86401s"}, "context_extensions.ttl"),
        ({**RESERVE, "overage_policy": "CAPPED"}, "context_extensions.overage_policy"),
        ({**RESERVE, "metric": "calls"}, "context_extensions.metric"),
        ({**RESERVE, "property.": "eu"}, "context_extensions.properties"),
    ],
)
async def test_mistake_in_a_route_is_an_error_that_names_it(
    gate: Envoy, settings: dict[str, str], named: str
) -> None:
    """It ends no call with an error: Envoy would let the request pass where failure_mode_allow is set."""
    code, _, error = refusal(await gate.ask(settings))
    assert (code, error["status"]) == (500, "INVALID_ARGUMENT")
    assert f"{named}: " in error["message"]


@pytest.mark.parametrize(
    ("request_id", "customer", "named"),
    [("r-1", "", "x-customer-id"), ("", "acme", "x-request-id"), ("r" * 129, "acme", "x-request-id")],
)
async def test_request_without_its_headers_is_bad(gate: Envoy, request_id: str, customer: str, named: str) -> None:
    code, _, error = refusal(await gate.ask(RESERVE, request_id, customer))
    assert (code, error["status"]) == (400, "INVALID_ARGUMENT")
    assert f"the header {named}: " in error["message"]


async def test_route_needs_the_role_of_its_method(caller: Caller, gate: Envoy, database_of: Database) -> None:
    reader = Envoy(caller, await key_of(database_of, caller, Role.READER))
    ingester = Envoy(caller, await key_of(database_of, caller, Role.INGESTER))
    assert changed(await reader.ask(CHECK))
    assert changed(await ingester.ask(RESERVE))
    for one, settings, role in ((reader, RESERVE, "INGESTER"), (ingester, CHECK, "READER")):
        code, _, error = refusal(await one.ask(settings, "r-2"))
        assert (code, error["reason"]) == (500, "ROLE_MISSING")
        assert role in error["message"]
        assert "key_" not in error["message"]


async def test_key_of_one_customer_checks_only_that_customer(
    caller: Caller, gate: Envoy, database_of: Database
) -> None:
    roles = (Role.READER,)
    own = Envoy(caller, await key_of(database_of, caller, *roles, customer_id="acme"))
    assert changed(await own.ask(CHECK))
    code, _, error = refusal(await own.ask(CHECK, customer="other"))
    assert (code, error["reason"]) == (500, "OTHER_CUSTOMER")


async def test_call_with_a_wrong_key_ends_with_an_error(caller: Caller, gate: Envoy) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await Envoy(caller, "wrong").ask(CHECK)
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(raised.value) == "ERROR_REASON_UNAUTHENTICATED"


async def test_organization_of_the_key_is_the_one_that_is_asked(
    caller: Caller, gate: Envoy, database_of: Database, clock: ManualClock
) -> None:
    _, key = await create_organization(database_of, clock)
    other = Envoy(caller, key)
    # It has no limit, and nothing of the reservations of the first one.
    await other.ask({**RESERVE, "quantity": "9"})
    assert await other.state("r-1") == OPEN
    assert changed(await gate.ask({**RESERVE, "quantity": "3"}))
    await gate.settle("r-1", "3")
    assert (await gate.state("r-1"), await other.state("r-1")) == (SETTLED, OPEN)


@pytest.fixture
def database_of(shared_pool: Database) -> Database:
    """The database of the server."""
    return shared_pool
