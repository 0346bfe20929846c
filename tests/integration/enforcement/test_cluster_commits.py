"""What holds on a cluster, whose nodes commit one after the other: a wallet can be free before all of a commit shows.

A session of the test stands for the node that commits last.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from evaluator.events import SettlingEvent
from generated.tidemark.v1 import customer_pb2
from store.postgres.database import Database
from tests.support.enforcement.gateway import Gateway, Sender, meters, put_limit, usage_event
from tests.support.postgres.lock_waits import until_it_waits_for_a_lock
from tests.support.postgres.nodes import workers
from tests.support.processes.programs import session
from tests.support.usage.caller import Caller

pytestmark = pytest.mark.skipif(
    not workers(), reason="no cluster is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS"
)

_ADD_CHARGE = "UPDATE reservation SET charges = charges || charges WHERE customer_id = 'ann'"
_HOLD = "UPDATE meter SET held = held * 2 WHERE customer_id = 'org'"
End = Callable[[Gateway, Sender], Coroutine[Any, Any, object]]


async def release(gateway: Gateway, _: Sender) -> object:
    """Releases the reservation."""
    return await gateway.release("a", customer="ann")


async def settle(gateway: Gateway, _: Sender) -> object:
    """Settles it."""
    return await gateway.settle("a", "0", customer="ann")


async def settle_by_event(_: Gateway, sender: Sender) -> object:
    """Settles it by an event of usage."""
    return await sender.send(SettlingEvent.of(usage_event("e", "0", customer="ann"), "a"))


@pytest.mark.parametrize("end", [release, settle, settle_by_event])
@pytest.mark.own_database
async def test_a_charge_that_does_not_show_yet_is_given_back(
    caller: Caller, gateway: Gateway, sender: Sender, own_pool: Database, end: End
) -> None:
    await caller.put_customer(customer_pb2.Customer(customer_id="org"))
    await caller.put_customer(customer_pb2.Customer(customer_id="ann", parent_customer_id="org"))
    await put_limit(caller, "100", customer="org")
    await gateway.reserve("a", "7", customer="ann")
    async with session(caller.database_url, autocommit=False) as last, session(caller.database_url) as first:
        await last.execute(_ADD_CHARGE.encode())
        await first.execute(_HOLD.encode())
        assert (await meters(caller))["org", "usage/calls", "BILLING_PERIOD"] == ("0", "14")
        ending = asyncio.create_task(end(gateway, sender))
        await until_it_waits_for_a_lock(own_pool, ending)
        await last.commit()
        await ending
    assert (await meters(caller))["org", "usage/calls", "BILLING_PERIOD"] == ("0", "0")
