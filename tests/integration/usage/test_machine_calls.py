"""The state machine of `machine.py`, which sends usage in single calls."""

from collections.abc import Callable

import pytest

from tests.support.databases import Template
from tests.support.usage.machine import STEPS, TIME_LIMIT, play
from tests.support.usage.stage import Stage


@pytest.mark.long
@pytest.mark.hypothesis
@pytest.mark.time_limit(TIME_LIMIT)
def test_answers_states_and_notifications_of_calls_equal_the_model(
    template: Template, hypothesis_seed: int, record_property: Callable[[str, object], None]
) -> None:
    stage = Stage(template.fresh_database())
    try:
        play(stage, STEPS // 2, streams=False, first_seed=hypothesis_seed)
    finally:
        stage.close()
    record_property("steps", stage.steps)
    record_property("kinds", dict(stage.kinds.most_common()))
