"""Random faults under load, with an independent tally: nothing is lost, counted twice, or notified under two ids.

What reservations granted stays granted, counts once, never passes the limit, and is given back in the end. The feed
has each notification once. On a cluster, where one is named, and on a PostgreSQL server with a standby.

`make test` injects a fault of each kind; `make test-faults` 200 of them, and prints how long recovery took.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from tests.support.databases import Template
from tests.support.faults import cluster_kinds, replicated_kinds
from tests.support.faults.cluster import cluster
from tests.support.faults.kinds import Kind
from tests.support.faults.replicated import replicated
from tests.support.faults.run import FaultRun, table
from tests.support.faults.stage import D
from tests.support.postgres.nodes import workers

FAULTS = int(os.environ.get("TIDEMARK_TEST_FAULTS") or 0)  # 0: one of each kind
SEED = int(os.environ.get("TIDEMARK_TEST_SEED") or 1)
RESULTS = os.environ.get("TIDEMARK_TEST_FAULTS_RESULTS")  # a file that gets the times, to add up several runs


@pytest.mark.long
@pytest.mark.time_limit(max(600, FAULTS * 30))
async def test_random_faults_lose_no_event_count_none_twice_and_notify_under_one_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        await run_faults(tmp_path, replicated_kinds.KINDS, replicated)


@pytest.mark.long
@pytest.mark.skipif(
    len(workers()) < 2,
    reason="no cluster of two workers is named: set TIDEMARK_TEST_DATABASE_URL and TIDEMARK_TEST_CITUS_WORKERS",
)
@pytest.mark.time_limit(max(900, FAULTS * 60))
async def test_random_faults_on_a_cluster_lose_no_event_count_none_twice_and_notify_under_one_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], template: Template
) -> None:
    """A node ends for all databases on it: only one test run at a time can use the cluster."""
    with capsys.disabled():
        await run_faults(tmp_path, cluster_kinds.KINDS, partial(cluster, template))


async def run_faults(
    folder: Path, kinds: Sequence[Kind[D]], database: Callable[[], AbstractAsyncContextManager[D]]
) -> None:
    """Injects the faults, and prints what came out."""
    number = FAULTS or len(kinds)
    run = FaultRun(number, SEED, folder, kinds, database)
    tally = await run.run()
    lines = [f"{number} faults, seed {SEED}", *tally.lines(), *table(kinds, run.recoveries)]
    lines += [f"not possible on this machine: {name}" for name in run.not_possible]
    sys.stdout.write("\n" + "\n".join(lines) + "\n")
    if RESULTS:
        append(Path(RESULTS), {"seed": SEED, "tally": asdict(tally), "recoveries": run.recoveries})


def append(file: Path, result: dict[str, object]) -> None:
    """Adds a line to a file."""
    with file.open("a") as opened:
        opened.write(json.dumps(result, default=str) + "\n")
