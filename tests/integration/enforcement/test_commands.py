"""`tidemark check` and `tidemark reservations` against a real server."""

import asyncio
import json
from dataclasses import dataclass

import pytest

from tests.support.enforcement.gateway import put_limit
from tests.support.enforcement.limits import Limits
from tests.support.processes.forked import started
from tests.support.usage.caller import Caller
from tests.support.waiting import within


@dataclass(frozen=True)
class Ended:
    """A command when it has ended."""

    exit_code: int
    stdout: str
    stderr: str


async def run(caller: Caller, *arguments: str) -> Ended:
    """Runs a command as a process of its own."""
    process = await started(
        *arguments,
        *("--server", f"127.0.0.1:{caller.server.port}", "--key", caller.key),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with within("the end of the command", 120):
        stdout, stderr = await process.communicate()
    return Ended(await process.wait(), stdout.decode(), stderr.decode())


@pytest.fixture
async def limits(caller: Caller) -> Limits:
    """A limit of 10, of which 8 are held."""
    await put_limit(caller, "10")
    limits = Limits(caller)
    await limits.reserve("r-1", "8")
    return limits


async def test_check_prints_the_decision_and_the_limit(limits: Limits) -> None:
    denied = await run(limits.caller, "check", "acme", "calls", "3")
    assert denied.exit_code == 0, denied.stderr
    first, limit, again = denied.stdout.splitlines()
    assert first == "denied  quantity 0: a hard limit leaves less"
    assert limit.strip().startswith("limit limit of acme, calls: 2 left of 10 (0 counted, 8 held) until 2026-")
    assert again.strip() == "try again in 0:00:01"
    too_much = await run(limits.caller, "check", "acme", "calls", "11")
    assert too_much.stdout.splitlines()[2].strip() == "no time will make it fit"
    capped = await run(limits.caller, "check", "acme", "calls", "3", "--policy", "cap", "--json")
    assert json.loads(capped.stdout)["decision"]["grantedQuantity"] == "2"
    assert await limits.remaining() == "2"


async def test_reservations_are_listed_shown_and_released(limits: Limits) -> None:
    await limits.reserve("r-2", "9")
    listed = await run(limits.caller, "reservations", "list", "acme")
    assert [line.split()[1:3] for line in listed.stdout.splitlines()[1:]] == [["r-1", "open"], ["r-2", "denied"]]
    shown = await run(limits.caller, "reservations", "get", "acme", "r-1", "--json")
    assert json.loads(shown.stdout)["state"] == "RESERVATION_STATE_OPEN"
    asked = await run(limits.caller, "reservations", "release", "acme", "r-1")
    assert (asked.exit_code, "add --yes" in asked.stderr) == (2, True)
    released = await run(limits.caller, "reservations", "release", "acme", "r-1", "--yes")
    assert released.stdout.splitlines()[1].split()[:6] == ["acme", "r-1", "released", "calls", "8", "8"]
    assert await limits.remaining() == "10"
    left = await run(limits.caller, "reservations", "list", "acme", "--state", "open")
    assert (left.exit_code, left.stdout) == (0, "")
    assert "no such reservations" in left.stderr


async def test_what_cannot_be_done_is_said_with_what_to_do(limits: Limits) -> None:
    for arguments, code, words in (
        (("reservations", "get", "acme", "none"), 3, "tidemark reservations list acme"),
        (("check", "acme", "calls", "many"), 2, "usage.quantity"),
    ):
        ended = await run(limits.caller, *arguments)
        assert ended.exit_code == code
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr
