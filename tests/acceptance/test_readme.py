"""The shell session of the README works as it is typed."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes.grpcurl import answers_of, session_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def session() -> str:
    """The README's shell session."""
    return session_of(ROOT / "README.md")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where `tidemark up` listens, on an embedded database of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cli.main", "up"],
        env={**environment, "TIDEMARK_DATA_DIRECTORY": str(tmp_path / "data"), "TIDEMARK_LISTEN": "127.0.0.1:0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        printed = []
        for line in process.stderr:
            printed.append(line)
            if found := re.match(r"server +listening on (\S+)", line):
                yield found.group(1)
                break
        else:
            pytest.fail("tidemark up ended: " + "".join(printed))
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_session_of_the_readme_works_as_typed(session: str, address: str, tmp_path: Path) -> None:
    answers = answers_of(session, address, tmp_path)
    assert len(answers) == 7
    created, validated, of_team, acknowledged, listed, endpoint, notifications_and_methods = answers
    assert '"alertId"' in created
    assert '"value": "500"' in validated
    assert '"team": "growth"' in of_team
    assert '"value": "1000"' in of_team
    assert '"value": "500"' not in of_team
    assert '"accepted": 1' in acknowledged
    assert '"level": "1000"' in acknowledged
    assert "CUSTOMER_ALERT_STATUS_IN_ALARM" in listed
    assert '"secret": "whsec_' in endpoint
    assert '"eventType": "EVENT_TYPE_ALERT_REACHED"' in notifications_and_methods
    assert "tidemark.v1.AlertService/EvaluateUsage" in notifications_and_methods
