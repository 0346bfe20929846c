"""An organization's calls and streams are limited, and the counts return to 0 however a call ends."""

import asyncio
import contextlib

import pytest

from proto.documents.contract import METHODS
from runtime.fair_semaphore import FairSemaphore
from server.calls.errors import ResourceExhausted
from server.calls.organization_shares import OrganizationShares
from server.interceptors.organization_shares import QUOTA_OF_STREAM

NOISY, QUIET = 1, 2


def test_every_method_with_a_stream_counts_in_a_quota() -> None:
    streaming = {
        f"/{method.containing_service.full_name}/{method.name}"
        for method in METHODS
        if method.client_streaming or method.server_streaming
    }
    assert set(QUOTA_OF_STREAM) == streaming


async def test_calls_beyond_an_organizations_share_are_refused_and_anothers_are_served() -> None:
    gate = FairSemaphore(2)
    shares, go = OrganizationShares(gate, most_of_one=3, streams_of_one=1), asyncio.Event()

    async def call(organization_id: int) -> None:
        async with shares.served(organization_id):
            await go.wait()

    noisy = [asyncio.create_task(call(NOISY)) for _ in range(5)]
    await asyncio.sleep(0)
    refused = [one for one in noisy if one.done()]
    assert len(refused) == 2
    for one in refused:
        error = one.exception()
        assert isinstance(error, ResourceExhausted)
        assert error.metadata == {"share_of": "organization", "limit": "3"}
        assert error.retry_after is not None
    async with asyncio.timeout(30), shares.counted(QUIET), gate.seat(QUIET):
        noisy[2].cancel()  # while it waits
        await asyncio.gather(noisy[2], return_exceptions=True)
        assert shares.open == 3
    go.set()
    await asyncio.gather(*noisy, return_exceptions=True)
    assert (shares.open, gate.free) == (0, 2)


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()])
async def test_a_call_that_fails_is_not_counted_after_it(error: BaseException) -> None:
    gate = FairSemaphore(2)
    shares = OrganizationShares(gate, most_of_one=1, streams_of_one=1)
    for _ in range(3):
        for share in (shares.served, shares.counted):
            with contextlib.suppress(type(error)):
                async with share(NOISY):
                    raise error
    assert (shares.open, gate.free) == (0, 2)


def test_a_stream_counts_until_it_is_closed_however_often() -> None:
    shares = OrganizationShares(FairSemaphore(1), most_of_one=1, streams_of_one=2)
    streams = [shares.open_stream(NOISY) for _ in range(2)]
    with pytest.raises(ResourceExhausted):
        shares.open_stream(NOISY)
    shares.open_stream(QUIET).close()
    streams[0].close()
    streams[0].close()
    assert shares.open == 1
    shares.open_stream(NOISY).close()
    streams[1].close()
    assert shares.open == 0
