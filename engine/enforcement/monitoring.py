"""What the pipeline of enforcement measures: for each commit, and for each kind of answer."""

from collections import Counter
from collections.abc import Sequence

from engine.enforcement.requests import Decided, EnforcementRefused
from evaluator.enforcement.decisions import Outcome
from runtime.monitoring.instruments import TRANSACTION_BUCKETS, Instruments

_REQUEST_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)
_OUTCOMES = ("allowed", "capped", "denied", "done", "refused")
_LABELS = {outcome: (outcome.value.lower(),) for outcome in Outcome}


class EnforcementMonitoring:
    """The measurements of one process.

    refused_calls: for whose requests there was no room. divided: commits that failed for what they write. expired:
    reservations that were given back because nothing settled them. lanes_busy: writers with something to commit.
    """

    def __init__(self, instruments: Instruments | None = None) -> None:
        instruments = instruments or Instruments()
        self.refused_calls = 0
        self.divided = 0
        self.expired = 0
        self.lanes_busy = 0
        self._answers = Counter[tuple[str, ...]]({(outcome,): 0 for outcome in _OUTCOMES})
        self.wait = instruments.histogram(
            "tidemark_enforcement_wait_seconds",
            "Time that the first request of a commit had waited for it.",
            TRANSACTION_BUCKETS,
        )
        self.seconds = instruments.histogram(
            "tidemark_enforcement_commit_duration_seconds",
            "Duration of a commit of enforcement that succeeded, from the request for a connection to the answers.",
            TRANSACTION_BUCKETS,
        )
        self._requests = instruments.histogram(
            "tidemark_enforcement_commit_requests", "Requests that a commit decided together.", _REQUEST_BUCKETS
        )
        counter, gauge = instruments.counter, instruments.gauge
        counter(
            "tidemark_enforcement_answers_total",
            "Requests of enforcement by their answer: allowed, capped, denied, done (a release or an extension),"
            " refused (an error).",
            lambda: self._answers,
            labels=("outcome",),
        )
        counter(
            "tidemark_enforcement_refused_calls_total",
            "Calls of enforcement refused with RESOURCE_EXHAUSTED, because too much was pending.",
            lambda: self.refused_calls,
        )
        counter(
            "tidemark_enforcement_divided_commits_total",
            "Commits of enforcement that failed for what they write, and were made again in parts.",
            lambda: self.divided,
        )
        counter(
            "tidemark_enforcement_expired_reservations_total",
            "Reservations that nothing had settled at the end of their grace.",
            lambda: self.expired,
        )
        gauge(
            "tidemark_enforcement_busy_lanes",
            "Writers that have something of enforcement to commit.",
            lambda: self.lanes_busy,
        )

    def committed(self, answers: Sequence[Decided | EnforcementRefused], seconds: float) -> None:
        """Counts a commit that succeeded."""
        self.seconds.observe(seconds)
        self._requests.observe(len(answers))
        counts = self._answers
        for answer in answers:
            if isinstance(answer, EnforcementRefused):
                counts["refused",] += 1
            elif answer.decision is None:
                counts["done",] += 1
            else:
                counts[_LABELS[answer.decision.outcome]] += 1
