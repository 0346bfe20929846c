"""A test that waits for ever fails with the line where it waits, and other tests run."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

TESTS = """
import asyncio, contextlib, queue
import pytest

async def test_waits_for_an_event():
    async def reads_what_never_comes():
        await asyncio.Event().wait()
    await asyncio.create_task(reads_what_never_comes(), name="the reader")

async def test_passes_over_heartbeats():
    while True:
        with contextlib.suppress(Exception):
            await asyncio.sleep(0)

def test_waits_for_a_queue():
    queue.Queue().get()

@pytest.fixture
async def never_closes():
    yield
    await asyncio.Event().wait()

async def test_is_fine_but_its_fixture_is_not(never_closes):
    pass

@pytest.mark.time_limit(60)
async def test_may_take_longer():
    await asyncio.sleep(0.6)

async def test_ends():
    await asyncio.sleep(0)
"""


def test_a_test_above_its_time_limit_fails_with_the_line_where_it_waits(tmp_path: Path) -> None:
    (tmp_path / "test_waiting.py").write_text(TESTS)
    options = [
        "-p",
        "tests.support.time_limit",
        "-p",
        "no:cacheprovider",
        "-o",
        "asyncio_mode=auto",
        "-rA",
        "--tb=short",
    ]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", os.devnull, f"--rootdir={tmp_path}", *options, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"TIDEMARK_TEST_LIMIT": "0.5"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    outcomes = {
        line.split("::")[1].split(" ")[0]: line.split(" ")[0]
        for line in run.stdout.splitlines()
        if "::" in line and line.split(" ")[0] in ("PASSED", "FAILED", "ERROR")
    }
    assert outcomes == {
        "test_waits_for_an_event": "FAILED",
        "test_passes_over_heartbeats": "FAILED",
        "test_waits_for_a_queue": "FAILED",
        "test_is_fine_but_its_fixture_is_not": "ERROR",
        "test_may_take_longer": "PASSED",
        "test_ends": "PASSED",
    }, run.stdout + run.stderr
    assert "the call of test_waiting.py::test_waits_for_an_event has lasted 0.5 seconds" in run.stdout
    assert "task the reader:" in run.stdout
    assert "in reads_what_never_comes\n" in run.stdout
