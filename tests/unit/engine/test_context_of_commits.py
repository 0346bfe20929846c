"""Commits and background tasks belong to no call: neither the first one nor the one that started them."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from engine.ingest.batches import Batch, Outcome
from runtime import log_fields
from runtime.log_fields import current_fields
from runtime.tasks import BackgroundTask, FailureLog
from runtime.tracing import current
from tests.support.tracing.contexts import context
from tests.support.usage.pipelines import ACME, LIMIT, Commits, batch, pipeline, submit

pytestmark = pytest.mark.asyncio(loop_scope="function")


class Call:
    """A call with log lines."""

    def log_fields(self) -> Mapping[str, Any]:
        """Its request id."""
        return {"request_id": "r-1"}


def begin() -> None:
    """Makes this task that of a call in a trace."""
    log_fields.begin(Call())
    current.begin(context(1))


async def test_lines_of_a_commit_have_its_organization_and_no_id_of_a_call(commits: Commits) -> None:
    seen: list[dict[str, Any]] = []
    together = commits.together

    async def noting(batches: Sequence[Batch]) -> list[Outcome] | None:
        seen.append(current_fields())
        return await together(batches)

    commits.together = noting  # type: ignore[method-assign]
    begin()
    async with asyncio.timeout(LIMIT):
        await submit(pipeline(), ACME, batch())
    assert seen == [{"organization_id": ACME.organization_id}]
    assert current_fields() == {"request_id": "r-1", "trace_id": context(1).trace_id}


async def test_steps_of_a_background_task_belong_to_no_call() -> None:
    seen: list[dict[str, Any]] = []
    done = asyncio.Event()

    async def step() -> None:
        seen.append(current_fields())
        done.set()

    begin()
    task = BackgroundTask(step, FailureLog(logging.getLogger(__name__), "it failed", "action"), name="task")
    task.start()
    async with asyncio.timeout(LIMIT):
        await done.wait()
        await task.stop()
    assert seen == [{}]
