"""Random faults under load, with an independent tally: nothing is lost, counted twice, or notified under two ids.

What reservations granted stays granted, counts once, never passes the limit, and is given back in the end.

`make test` injects a fault of each kind; `make test-faults` 200 of them, and prints how long recovery took.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.support.faults.kinds import KINDS
from tests.support.faults.run import FaultRun, table

FAULTS = int(os.environ.get("TIDEMARK_TEST_FAULTS") or len(KINDS))
SEED = int(os.environ.get("TIDEMARK_TEST_SEED") or 1)
RESULTS = os.environ.get("TIDEMARK_TEST_FAULTS_RESULTS")  # a file that gets the times, to add up several runs


@pytest.mark.long
@pytest.mark.time_limit(max(600, FAULTS * 30))
async def test_random_faults_lose_no_event_count_none_twice_and_notify_under_one_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = FaultRun(FAULTS, SEED, tmp_path)
    tally = await run.run()
    lines = [f"{FAULTS} faults, seed {SEED}", *tally.lines(), *table(run.recoveries)]
    lines += [f"not possible on this machine: {name}" for name in run.not_possible]
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")
    if RESULTS:
        append(Path(RESULTS), {"seed": SEED, "tally": asdict(tally), "recoveries": run.recoveries})


def append(file: Path, result: dict[str, object]) -> None:
    """Adds a line to a file."""
    with file.open("a") as opened:
        opened.write(json.dumps(result, default=str) + "\n")
