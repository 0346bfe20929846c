"""The metrics of LimitService. The engine measures reservations and settlements."""

from collections import Counter
from typing import Protocol

from evaluator.enforcement.decisions import Decision, Outcome
from runtime.monitoring.instruments import Instruments

_LABELS = {outcome: (outcome.value.lower(),) for outcome in Outcome}
_OF_ERROR = ("error",)


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
        self._checks = Counter[tuple[str, ...]](dict.fromkeys((*_LABELS.values(), _OF_ERROR), 0))
        instruments.counter(
            "tidemark_enforcement_checks_total",
            "Checks of CheckUsage and BatchCheckUsage, by outcome.",
            lambda: self._checks,
            labels=("outcome",),
        )

    def count(self, found: Decision | Exception) -> None:
        """Counts the answer to a check."""
        self._checks[_OF_ERROR if isinstance(found, Exception) else _LABELS[found.outcome]] += 1

    def add_watched(self, watched: Watched) -> None:
        """Adds what is watched."""
        gauge = self._instruments.gauge
        gauge("tidemark_enforcement_watchers", "Open streams of WatchDecisions.", lambda: watched.watchers)
        gauge(
            "tidemark_enforcement_watched_decisions",
            "Decisions that they watch, each once.",
            lambda: watched.decisions,
        )
