"""LimitService and who calls it: other organizations, keys of one customer, and keys without a role."""

from collections.abc import Iterator
from typing import Any

import grpc

from generated.tidemark.v1 import customer_pb2
from store.identity import keys
from store.identity.keys import KeySettings
from store.identity.roles import Role
from store.postgres.database import Database
from tests.support.databases import NOON
from tests.support.enforcement.gateway import put_limit
from tests.support.enforcement.limits import (
    METHODS,
    Limits,
    message,
    named,
    next_of,
    remaining_of,
    reserve,
    usage,
    watched,
)
from tests.support.server.running import reason_of
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller
from tests.support.usage.organizations import organization

pytestmark = shares_server

READING = {"CheckUsage", "BatchCheckUsage", "WatchDecisions", "GetReservation", "ListReservations"}
BATCH = {"customerIds": ["acme"], "usages": [{"metricId": "calls", "quantity": "1"}]}


def requests(customer_id: str = "acme") -> dict[str, dict[str, Any]]:
    """A request of each unary method about a customer whose reservation is r-1."""
    about = {"reservationId": "r-1", "customerId": customer_id}
    return {
        "CheckUsage": {"usage": usage("1", customer_id)},
        "BatchCheckUsage": {**BATCH, "customerIds": [customer_id]},
        "ReserveUsage": {"reservationId": "r-2", "usage": usage("1", customer_id)},
        "SettleReservation": about,
        "ReleaseReservation": about,
        "ExtendReservation": about,
        "GetReservation": about,
        "ListReservations": {"customerId": customer_id},
    }


async def limits_with(caller: Caller, *roles: Role, customer_id: str = "") -> Limits:
    """LimitService, called with another key of the organization."""
    database = Database(caller.database_url, pool_size=1)
    async with database.transaction() as connection:
        settings = KeySettings(frozenset(roles), customer_id=customer_id)
        created = await keys.create_key(connection, caller.organization, NOON, settings)
    await database.close()
    return Limits(Caller(caller.server, caller.clock, caller.database_url, caller.organization, created.key))


async def of_stream(call: Any) -> str:
    """The reason with which a stream is refused; empty if it answers."""
    try:
        await next_of(call)
    except grpc.aio.AioRpcError as error:
        return reason_of(error).removeprefix("ERROR_REASON_")
    finally:
        call.cancel()
    return ""


def unary() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each unary method with a request about acme."""
    yield from requests().items()


def test_requests_name_every_method() -> None:
    assert {*requests(), "EnforceUsage", "WatchDecisions"} == set(METHODS)


async def test_another_organization_meets_nothing_of_this_one(caller: Caller) -> None:
    """The same ids name other customers, limits, meters and reservations there."""
    await put_limit(caller, "10")
    ours = Limits(caller)
    first = await ours.reserve("r-1", "10")
    name, secret = await organization(caller.database_url, caller.clock)  # type: ignore[arg-type]
    theirs = Limits(Caller(caller.server, caller.clock, caller.database_url, name, secret))
    for method in ("GetReservation", "SettleReservation", "ReleaseReservation", "ExtendReservation"):
        assert await theirs.refused(method, **named("r-1")) == ("NOT_FOUND", "RESERVATION_NOT_FOUND")
    assert await theirs.call("ListReservations", customerId="acme") == {}
    checked = await theirs.call("CheckUsage", usage=usage("5"))
    assert checked["decision"] == {
        "outcome": "DECISION_OUTCOME_ALLOWED",
        "reason": "DECISION_REASON_NONE",
        "grantedQuantity": "5",
    }
    batch = await theirs.call("BatchCheckUsage", **BATCH)
    assert "limit" not in batch["customers"][0]["checks"][0]["decision"]
    stream = theirs.open("WatchDecisions", watched("acme"))
    assert await remaining_of(stream) == {"acme": ""}
    both = theirs.open("EnforceUsage")
    await both.write(message("b", reserve("r-1", "7"), {"settle": {**named("r-1"), "quantity": "7"}}))
    results = (await next_of(both))["results"]
    assert results[1]["settle"]["reservation"]["state"] == "RESERVATION_STATE_SETTLED"
    await put_limit(theirs.caller, "8")
    assert await theirs.remaining() == "1"
    assert await ours.remaining() == "0"
    assert (await ours.call("GetReservation", **named("r-1")))["reservation"] == first["reservation"]
    stream.cancel()
    both.cancel()


async def test_a_key_of_one_customer_reads_that_customer_and_changes_nothing(caller: Caller) -> None:
    await put_limit(caller, "10")
    await put_limit(caller, "10", "of-globex", customer="globex")
    for customer in ("acme", "globex"):
        await Limits(caller).call("ReserveUsage", **reserve("r-1", "4", customer)["reserve"])
    mine = await limits_with(caller, Role.READER, Role.INGESTER, customer_id="acme")
    other = ("PERMISSION_DENIED", "OTHER_CUSTOMER")
    for method, request in unary():
        if method in READING:
            assert await mine.call(method, **request)
        else:
            assert await mine.refused(method, **request) == other
        assert await mine.refused(method, **requests("globex")[method]) == other
    both = {**BATCH, "customerIds": ["acme", "globex"]}
    assert await mine.refused("BatchCheckUsage", **both) == other
    assert await of_stream(mine.open("WatchDecisions", watched("acme"))) == ""
    assert await of_stream(mine.open("WatchDecisions", watched("acme", "globex"))) == "OTHER_CUSTOMER"
    assert await of_stream(mine.open("WatchDecisions", watched("globex"))) == "OTHER_CUSTOMER"
    assert await of_stream(mine.open("EnforceUsage")) == "OTHER_CUSTOMER"
    states = await Limits(caller).call("ListReservations", customerId="acme")
    assert [one["state"] for one in states["reservations"]] == ["RESERVATION_STATE_OPEN"]


async def test_a_key_without_the_role_is_refused_by_each_method(caller: Caller) -> None:
    missing = ("PERMISSION_DENIED", "ROLE_MISSING")
    for role in (Role.READER, Role.INGESTER):
        limits = await limits_with(caller, role)
        for method, request in unary():
            if (method in READING) != (role is Role.READER):
                assert await limits.refused(method, **request) == missing, (role, method)
        stream = limits.open(*(("EnforceUsage",) if role is Role.READER else ("WatchDecisions", watched("acme"))))
        assert await of_stream(stream) == "ROLE_MISSING"


async def test_a_key_of_one_customer_sees_no_amounts_of_the_customers_above(caller: Caller) -> None:
    """Usage of others counts there. Answers do not show it, and streams send none when only that has changed."""
    await caller.put_customer(customer_pb2.Customer(customer_id="team"))
    for customer in ("acme", "globex"):
        await caller.put_customer(customer_pb2.Customer(customer_id=customer, parent_customer_id="team"))
    await put_limit(caller, "10", "of-team", customer="team")
    await put_limit(caller, "1000", "own")
    everyone = Limits(caller)
    await everyone.call("ReserveUsage", **reserve("r-0", "1", "globex")["reserve"])
    mine = await limits_with(caller, Role.READER, customer_id="acme")
    stream = mine.open("WatchDecisions", watched("acme"))
    first = await next_of(stream)
    hidden = {"limitId", "customerId", "groups", "amount", "counted", "held", "remaining"}
    assert not hidden & set(first["decisions"][0]["decision"]["limit"])
    await everyone.call("ReserveUsage", **reserve("r-1", "2", "globex")["reserve"])
    checked = await mine.call("CheckUsage", usage=usage("8"))
    assert checked["decision"]["outcome"] == "DECISION_OUTCOME_DENIED"
    limit = checked["decision"]["limit"]
    assert limit["quantity"] == {"metricId": "calls"}
    assert limit["enforcement"] == "LIMIT_ENFORCEMENT_HARD"
    assert limit["resetTime"] == limit["windowEndTime"]
    assert not hidden & set(limit)
    batch = await mine.call("BatchCheckUsage", **BATCH)
    assert not hidden & set(batch["customers"][0]["checks"][0]["decision"]["limit"])
    over = await mine.call("CheckUsage", usage=usage("1001"), overagePolicy="USAGE_OVERAGE_POLICY_OVERFLOW")
    shown = [one.get("limitId", "") for one in over["decision"]["over"]]
    assert sorted(shown) == ["", "own"]
    # A full key sees all; and the stream has nothing to say until the decision is another one.
    checked = await everyone.call("CheckUsage", usage=usage("8"))
    assert checked["decision"]["limit"]["limitId"] == "of-team"
    await everyone.call("ReserveUsage", **reserve("r-2", "7", "globex")["reserve"])
    second = await next_of(stream)
    assert [one["decision"]["outcome"] for one in second["decisions"]] == ["DECISION_OUTCOME_DENIED"]
    stream.cancel()
