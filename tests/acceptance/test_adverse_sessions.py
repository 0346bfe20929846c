"""Role, database and environment set adverse session values: programs count and deliver as without them."""

import asyncio
from datetime import UTC, datetime

from tests.support.notifier.receiver import Receiver
from tests.support.postgres.adverse_settings import make_adverse, make_ordinary
from tests.support.processes import results
from tests.support.processes.outage import everything_arrived
from tests.support.processes.programs import Programs
from tests.support.processes.results import ALERTS, SEATS
from tests.support.processes.traffic import progress, streaming
from tests.support.webhooks.endpoints import create_endpoint


async def test_programs_count_exactly_when_role_and_database_set_adverse_session_values(
    programs: Programs, database_url: str, receiver: Receiver
) -> None:
    await make_adverse(database_url)
    programs.variables = {
        "PGOPTIONS": "-c default_transaction_isolation=serializable -c jit_above_cost=0",
        "PGTZ": "America/St_Johns",
        "PGDATESTYLE": "Postgres, MDY",
    }
    server, other, notifier = await asyncio.gather(programs.serve(), programs.serve("other"), programs.notify())
    await results.create(server.address, *ALERTS, SEATS)
    async with server.address.channel() as channel:
        secret = await create_endpoint(channel, receiver.url)
    now = datetime.now(UTC)
    # Two servers write for the same customers, which is what REPEATABLE READ cannot do.
    async with streaming(server.address, 2, now) as clients, streaming(other.address, 1, now) as others:
        await progress([*clients, *others])
    # The names of clients are those of their events, so these two have sent the same.
    sent = {(event.customer_id, event.event_id): event for client in [*clients, *others] for event in client.sent}
    assert [client.interruptions for client in [*clients, *others]] == [[], [], []]
    await make_ordinary(database_url)  # what follows are sessions of this test
    assert await results.stored(database_url) == results.expected(sent.values(), *ALERTS, SEATS)
    await everything_arrived(database_url, receiver, secret)
    for program in (server, other, notifier):
        assert await program.stop() == 0
        assert program.complaints() == []
        assert "failed a transaction" not in program.said()
