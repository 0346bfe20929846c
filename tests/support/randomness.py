"""What random tests draw: the same in every run, unless the run has a seed of its own.

`--hypothesis-seed=NUMBER` (`make test-random`) draws other values. The same number draws the same values again.
"""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.internal.conjecture import providers

# How long a test may take and how long its values take to draw depend on how busy the machine is.
_UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None, print_blob=True)
# A failure is shown as it was found: to shrink a story of a thousand calls takes longer than the whole suite.
# `make test-random` shrinks.
settings.register_profile("fixed", _UNTIMED, derandomize=True, phases=(Phase.explicit, Phase.generate))
settings.register_profile("random", _UNTIMED, max_examples=500)


def load_profile(config: pytest.Config) -> None:
    """Decides what Hypothesis draws; to be called before the import of test modules, whose decorators need it."""
    if config.getoption("hypothesis_seed") is not None:
        settings.load_profile("random")
        return
    settings.load_profile("fixed")
    # Hypothesis also draws the literals of the project's modules that are imported. So a test would draw other values
    # in a run of its file alone, and after the change of any literal anywhere.
    providers._get_local_constants = lambda: providers._local_constants  # these are none at first


def seed_line(config: pytest.Config) -> str:
    """The line about the seed at the top of the report."""
    seed = config.getoption("hypothesis_seed")
    if seed is None:
        return "random tests: fixed values (make test-random draws others)"
    return f"random tests: seed {seed} (make test-random SEED={seed} draws the same values again)"


@pytest.fixture
def hypothesis_seed(request: pytest.FixtureRequest) -> int:
    """The seed of tests that run state machines themselves."""
    return int(request.config.getoption("hypothesis_seed") or 0)
