"""How the phases of an attempt and the lease of its delivery follow from one setting."""

from datetime import timedelta

import pytest

from notifier.sending import Timeouts
from runtime.configuration import Configuration


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Configuration().webhook_timeout, Timeouts(connect=5.0, headers=15.0, body=1.0)),
        (60.0, Timeouts(connect=5.0, headers=60.0, body=1.0)),
        (2.0, Timeouts(connect=2.0, headers=2.0, body=1.0)),
        (0.5, Timeouts(connect=0.5, headers=0.5, body=0.5)),
    ],
)
def test_the_setting_bounds_every_phase(answer: float, expected: Timeouts) -> None:
    assert Timeouts.of(answer) == expected


def test_a_lease_lasts_three_times_as_long_as_an_attempt_can() -> None:
    assert Timeouts().lease == timedelta(seconds=3 * (5 + 15 + 1))
