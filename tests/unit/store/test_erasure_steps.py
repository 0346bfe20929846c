"""The steps of an erasure are counted, and servers of two versions take those of one job in turn."""

from typing import Any, cast

from store.erasures.jobs import Step, StepResult
from store.erasures.steps import STEPS, together

NOTHING = cast(Any, None)


def test_no_step_has_a_new_number() -> None:
    # A job that both versions work on is at a number. With another list, the version before leaves out steps: rows of
    # the erased customer stay. What is new is taken `together` with a step that exists.
    assert len(STEPS) == 24


async def test_steps_under_one_number_are_complete_together_and_in_their_order() -> None:
    taken: list[str] = []

    def step(name: str, rows: list[int]) -> Step:
        async def take(*_: object) -> StepResult:
            taken.append(name)
            deleted = rows.pop(0) if rows else 0
            return StepResult(deleted=deleted, complete=not deleted)

        return take

    both = together(step("a", [2]), step("b", [3, 1]))
    results = [await both(NOTHING, NOTHING, 10) for _ in range(4)]
    assert [one.deleted for one in results] == [2, 3, 1, 0]
    assert [one.complete for one in results] == [False, False, False, True]
    assert taken == ["a", "a", "b", "a", "b", "a", "b"]


async def test_a_step_that_waits_keeps_those_behind_it() -> None:
    async def waits(*_: object) -> StepResult:
        return StepResult(pseudonymised=1, waits=True)

    async def never(*_: object) -> StepResult:
        raise AssertionError

    assert await together(waits, never)(NOTHING, NOTHING, 10) == StepResult(pseudonymised=1, waits=True)
