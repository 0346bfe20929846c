"""Random reservations, usage, limits and balances on two servers: the engine does what the reference model says."""

import os

from hypothesis import HealthCheck, given, settings

from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.support.databases import NOON
from tests.support.enforcement.gateway import gateway_of
from tests.support.enforcement.hold_run import Run
from tests.support.enforcement.hold_story import stories
from tests.support.usage.caller import Caller
from tests.support.usage.organizations import organization

EXAMPLES = int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "12"))  # stories; hundreds take minutes
STEPS = int(os.environ.get("TIDEMARK_TEST_STEPS") or "30")  # of a story, at most


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(story=stories(STEPS))
async def test_two_servers_equal_the_reference_model_for_random_holds(
    caller: Caller, clock: ManualClock, own_pool: Database, story: list[object]
) -> None:
    clock.set(NOON)
    name, secret = await organization(caller.database_url, clock)
    own = Caller(caller.server, clock, caller.database_url, name, secret)
    async with gateway_of(own, writers=1) as first, gateway_of(own, writers=1) as second:
        run = Run(own, clock, own_pool, [first, second])
        await run.begin()
        for number, change in enumerate(story, start=1):
            await run.change(change)
            if number == len(story) or number % 4 == 0:
                await run.compare()
        await run.end()
