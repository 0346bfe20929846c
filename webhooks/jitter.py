"""The random part of every wait: requests that failed together are not repeated together."""

import random
from datetime import timedelta

MAX_JITTER = 0.2  # of a wait. It only makes waits longer: a receiver is never called earlier than was planned.


def jittered(wait: timedelta, randomness: random.Random) -> timedelta:
    """`wait`, and up to MAX_JITTER of it more."""
    return wait + wait * randomness.uniform(0.0, MAX_JITTER)
