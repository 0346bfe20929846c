"""The metrics of LimitService. The engine measures reservations and settlements."""

from collections import Counter
from typing import Protocol

from evaluator.enforcement.decisions import Decision, Outcome
from runtime.monitoring.instruments import Instruments

_ERROR = "error"


class Watched(Protocol):
    """What is watched. watchers: open streams of WatchDecisions. decisions: what they watch, each once."""

    @property
    def watchers(self) -> int: ...

    @property
    def decisions(self) -> int: ...


class CheckMonitoring:
    """Counts the checks of CheckUsage and BatchCheckUsage by outcome."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        self._instruments = instruments = instruments or Instruments()
        self._checks = Counter[tuple[str, ...]](
            {(outcome,): 0 for outcome in (*(one.lower() for one in Outcome), _ERROR)}
        )
        instruments.counter(
            "tidemark_enforcement_checks_total",
            "Checks of CheckUsage and BatchCheckUsage, by outcome.",
            lambda: self._checks,
            labels=("outcome",),
        )

    def count(self, found: Decision | Exception) -> None:
        """Counts the answer to a check."""
        self._checks[_ERROR if isinstance(found, Exception) else found.outcome.lower(),] += 1

    def add_watched(self, watched: Watched) -> None:
        """Adds what is watched."""
        gauge = self._instruments.gauge
        gauge("tidemark_enforcement_watchers", "Open streams of WatchDecisions.", lambda: watched.watchers)
        gauge(
            "tidemark_enforcement_watched_decisions",
            "Decisions that they watch, each once.",
            lambda: watched.decisions,
        )
