"""Alerts of customers are created, edited, disabled and archived at random by several clients of two servers, while
usage streams through both: every answer, notification and state is that of the reference model.

A step is one event that is sent, or one change that is made. `make test-model STEPS=100000` plays more of them, and
`make test-random` plays others.
"""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from tests.support.databases import Template
from tests.support.story.story import play
from tests.support.usage.machine import STEPS, TIME_LIMIT

CASES = 2  # each with an organization and servers of its own


@pytest.mark.long
@pytest.mark.hypothesis
@pytest.mark.time_limit(TIME_LIMIT)
@pytest.mark.parametrize("case", range(CASES))
def test_alerts_of_customers_are_evaluated_as_the_model_says_while_they_change(
    case: int, template: Template, hypothesis_seed: int, record_property: Callable[[str, object], None]
) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, template.lent_database() as url:
        story = runner.run(play(url, STEPS // CASES, f"{hypothesis_seed}, case {case}"))
    record_property("steps", story.steps)
    record_property("kinds", dict(story.kinds.most_common()))
    record_property("restarts", story.servers.restarts)
