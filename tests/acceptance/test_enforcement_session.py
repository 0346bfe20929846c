"""The shell session of docs/enforcement.md works as it is typed."""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.support.deployment import ROOT
from tests.support.processes.grpcurl import answers_of, session_of
from tests.support.processes.programs import Programs

OUTCOME = "DECISION_OUTCOME_"


def shown(answer: dict[str, Any]) -> tuple[str, str]:
    """The outcome of a decision, and the state of its reservation."""
    outcome = answer["decision"]["outcome"].removeprefix(OUTCOME)
    return outcome, answer["reservation"]["state"].removeprefix("RESERVATION_STATE_")


async def test_example_of_enforcement_works_as_typed(programs: Programs, tmp_path: Path) -> None:
    server = await programs.serve()
    session = session_of(ROOT / "docs" / "enforcement.md")
    answers = await asyncio.to_thread(answers_of, session, server.address.server, tmp_path)
    limit, first, second, settled, third, released, checked = map(json.loads, answers)
    assert limit["limit"]["enforcement"] == "LIMIT_ENFORCEMENT_HARD"
    assert shown(first) == ("ALLOWED", "OPEN")
    assert shown(second) == ("DENIED", "DENIED")
    refused = second["decision"]
    assert (refused["limit"]["remaining"], refused["limit"]["held"], refused["retryAfter"]) == ("400", "600", "1s")
    assert shown(settled) == ("ALLOWED", "SETTLED")
    assert settled["reservation"]["settledQuantity"] == "250"
    assert shown(third) == ("ALLOWED", "OPEN")
    assert released["reservation"]["state"] == "RESERVATION_STATE_RELEASED"
    assert checked["decision"]["outcome"] == OUTCOME + "ALLOWED"
    assert checked["decision"]["limit"]["remaining"] == "750"
