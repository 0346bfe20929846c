"""Ctrl-C ends `tidemark apply` after the calls that run, however many are left."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from cli.apply import plan
from cli.apply.kinds import KINDS
from cli.apply.plan import Action, Planner, Step

HANDED_OUT = 500


class Interrupted(ThreadPoolExecutor):
    """A pool whose caller is interrupted while it hands out work."""

    handed_out = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.handed_out += 1
        if self.handed_out > HANDED_OUT:
            raise KeyboardInterrupt
        return super().submit(*args, **kwargs)


def test_ctrl_c_leaves_what_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "ThreadPoolExecutor", Interrupted)
    begun: list[str] = []

    def work(step: Step) -> Step:
        begun.append(step.key)
        time.sleep(0.05)
        return step

    planner: Any = object.__new__(Planner)
    steps = [Step(Action.REMOVE, KINDS[0], str(index), "") for index in range(2 * HANDED_OUT)]
    with pytest.raises(KeyboardInterrupt):
        planner.each(steps, work)
    assert len(begun) < HANDED_OUT
