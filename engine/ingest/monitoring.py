"""What the pipeline measures: for each message and each commit, and never for each event."""

import time
from collections import Counter
from collections.abc import Sequence

from engine.ingest.batches import Outcome
from runtime.monitoring.busiest import BusiestOrganizations
from runtime.monitoring.instruments import TRANSACTION_BUCKETS, Instruments
from runtime.tracing.spans import Span

_EVENT_BUCKETS = (1, 10, 100, 500, 1_000, 5_000, 10_000, 20_000)
_BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 500)

# The phases of a commit, in their order. A small commit has three: `together` instead of those before `commit`.
CONNECTION, RULES, FACTS, STORE, COUNT, TOGETHER, COMMIT, OUTCOMES = PHASES = (
    "connection",
    "rules",
    "facts",
    "store",
    "count",
    "together",
    "commit",
    "outcomes",
)

# Where commits of a cluster run.
AT_NODE, UNKNOWN_TO_NODE, NODE_COULD_NOT, NODE_AWAY = (
    "node",
    "coordinator_unknown",
    "coordinator_given_back",
    "coordinator_node_away",
)


class IngestMonitoring:
    """The measurements of one pipeline.

    received: events of the batches that were admitted. refused: batches for which there was no room. divided: commits
    that failed for what they write. lanes_busy: writers with something to commit. placed: commits by their place.
    """

    def __init__(self, instruments: Instruments | None = None) -> None:
        instruments = instruments or Instruments()
        self.received = 0
        self.refused = 0
        self.divided = 0
        self.lanes_busy = 0
        self.placed = Counter[tuple[str, ...]]()
        self.organizations = BusiestOrganizations()
        self._events = Counter[tuple[str, ...]]({("accepted",): 0, ("duplicate",): 0})
        self._rejected = Counter[tuple[str, ...]]()
        self._transitions = 0
        self._phases = dict.fromkeys(PHASES, 0.0)
        self._add_counters(instruments)
        self.wait = instruments.histogram(
            "tidemark_ingest_wait_seconds",
            "Time that the first batch of a commit had waited for it.",
            TRANSACTION_BUCKETS,
        )
        self._seconds = instruments.histogram(
            "tidemark_ingest_commit_duration_seconds",
            "Duration of a commit of usage that succeeded, from the request for a connection to the outcomes.",
            TRANSACTION_BUCKETS,
            labels=("kind",),
        )
        self._of_small, self._of_ordinary = self._seconds.labels("small"), self._seconds.labels("ordinary")
        self._commit_events = instruments.histogram(
            "tidemark_ingest_commit_events", "Events of a commit, duplicates among them.", _EVENT_BUCKETS
        )
        self._commit_batches = instruments.histogram(
            "tidemark_ingest_commit_batches", "Batches that a commit stored together.", _BATCH_BUCKETS
        )

    def begin(self, span: Span) -> "CommitPhases":
        """Begins to measure the phases of a commit."""
        return CommitPhases(self._phases, span)

    def committed(
        self, phases: "CommitPhases", outcomes: Sequence[Outcome], events: int, organization: str, *, small: bool
    ) -> None:
        """Counts a commit that succeeded. events: that it was to store. organization: the name."""
        (self._of_small if small else self._of_ordinary).observe(time.perf_counter() - phases.began)
        self._commit_events.observe(events)
        self._commit_batches.observe(len(outcomes))
        accepted = duplicates = transitions = 0
        for one in outcomes:
            accepted += one.accepted
            duplicates += len(one.duplicates)
            transitions += len(one.transitions)
            if one.conflicting or one.too_old or one.of_erased:
                self._reject("conflicting", len(one.conflicting))
                self._reject("too_old", len(one.too_old))
                self._reject("of_erased_customer", len(one.of_erased))
        self._events["accepted",] += accepted
        self._events["duplicate",] += duplicates
        self._transitions += transitions
        self.organizations.add(organization, accepted)

    def invalid(self, events: int) -> None:
        """Counts events that were rejected before they came to a commit."""
        self._reject("invalid", events)

    def unrecorded(self, events: int) -> None:
        """Counts events that were rejected because what they change cannot be recorded."""
        self._reject("unrecorded", events)

    def _reject(self, reason: str, events: int) -> None:
        if events:
            self._rejected[reason,] += events

    def _add_counters(self, instruments: Instruments) -> None:
        counter, gauge = instruments.counter, instruments.gauge
        for place in (AT_NODE, UNKNOWN_TO_NODE, NODE_COULD_NOT, NODE_AWAY):
            self.placed[place,] = 0
        for reason in ("invalid", "conflicting", "too_old", "of_erased_customer", "unrecorded"):
            self._rejected[reason,] = 0
        counter(
            "tidemark_ingest_received_events_total", "Events of batches that were admitted.", lambda: self.received
        )
        counter(
            "tidemark_ingest_events_total",
            "Events by what a commit made of them: accepted, duplicate.",
            lambda: self._events,
            labels=("outcome",),
        )
        counter(
            "tidemark_ingest_rejected_events_total",
            "Events that were rejected, by reason.",
            lambda: self._rejected,
            labels=("reason",),
        )
        counter("tidemark_ingest_transitions_total", "Transitions that usage has caused.", lambda: self._transitions)
        counter(
            "tidemark_ingest_refused_batches_total",
            "Batches refused with RESOURCE_EXHAUSTED, because too many events were pending.",
            lambda: self.refused,
        )
        counter(
            "tidemark_ingest_divided_commits_total",
            "Commits that failed for what they write, and were made again in parts.",
            lambda: self.divided,
        )
        counter(
            "tidemark_ingest_placed_commits_total",
            "On a cluster, commits by place: node, or the coordinator because it alone can register or keep what"
            " events name (coordinator_unknown), because the node could not finish it (coordinator_given_back), or"
            " because the node was not reached (coordinator_node_away).",
            lambda: self.placed,
            labels=("place",),
        )
        counter(
            "tidemark_ingest_commit_phase_seconds_total",
            "Time of all commits by phase; the phases of one commit follow each other.",
            lambda: {(phase,): seconds for phase, seconds in self._phases.items()},
            labels=("phase",),
        )
        counter(
            "tidemark_organization_events_total",
            "Accepted events of the busiest organizations.",
            self.organizations.totals,
            labels=("organization",),
        )
        gauge("tidemark_ingest_busy_lanes", "Writers that have something to commit.", lambda: self.lanes_busy)


class CommitPhases:
    """Adds the duration of each phase of one commit to the totals, and its end to the span of the commit.

    began: by `time.perf_counter`.
    """

    __slots__ = ("_last", "_span", "_totals", "began")

    def __init__(self, totals: dict[str, float], span: Span) -> None:
        self._totals = totals
        self._span = span
        self.began = self._last = time.perf_counter()

    def end(self, phase: str) -> None:
        """Ends a phase; the next one begins at once."""
        now = time.perf_counter()
        self._totals[phase] += now - self._last
        self._last = now
        self._span.event(phase)
