"""Batches: events that were sent together, and the outcome of each batch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from engine.evaluation.results import RecordedTransition
from evaluator.enforcement.decisions import LimitState
from evaluator.events import UsageEvent
from evaluator.gauges import Gauge
from runtime.tracing.context import TraceContext


@dataclass(eq=False, slots=True)
class Batch:
    """Events of one organization that were sent together, in the order in which they were sent.

    trace: of the call that sent them.
    """

    events: Sequence[UsageEvent]
    include_gauges: bool = False
    trace: TraceContext | None = None

    def part(self, events: Sequence[UsageEvent]) -> "Batch":
        """Some of its events, as a batch."""
        return Batch(events, self.include_gauges, self.trace)


@dataclass(eq=False, slots=True)
class Outcome:
    """What became of a batch; indexes are those in its `events`.

    accepted: how many were new. duplicates: stored before. conflicting: rejected, since another event of that id
    is stored. too_old: rejected, since every period that they lie in is out of grace. of_erased: rejected, since
    their customer is being erased. unrecorded: rejected, since the service failed to record what they change.
    transitions: made by its events. gauges: moved by its events, if asked for. over_limits: hard limits that its
    events met and that are passed now, each once.
    """

    accepted: int = 0
    duplicates: list[int] = field(default_factory=list)
    conflicting: list[int] = field(default_factory=list)
    too_old: list[int] = field(default_factory=list)
    of_erased: list[int] = field(default_factory=list)
    unrecorded: list[int] = field(default_factory=list)
    transitions: list[RecordedTransition] = field(default_factory=list)
    gauges: list[tuple[Gauge, Decimal]] = field(default_factory=list)
    over_limits: list[LimitState] = field(default_factory=list)


def add_part(whole: Outcome, part: Outcome, indexes: Sequence[int] | None) -> None:
    """Adds to a batch's outcome that of a part of it. indexes: of the part's events in the batch (None: the same).

    The parts of a batch come in the order of their commits: of a gauge that several moved, and of a limit that
    several met, the last state is shown.
    """
    whole.accepted += part.accepted
    whole.transitions += part.transitions
    whole.gauges = list({**dict(whole.gauges), **dict(part.gauges)}.items()) if whole.gauges else part.gauges
    if part.over_limits:
        states = {(state.limit.limit_id, state.meter.key): state for state in (*whole.over_limits, *part.over_limits)}
        whole.over_limits = list(states.values())
    for mine, theirs in (
        (whole.duplicates, part.duplicates),
        (whole.conflicting, part.conflicting),
        (whole.too_old, part.too_old),
        (whole.of_erased, part.of_erased),
        (whole.unrecorded, part.unrecorded),
    ):
        mine += theirs if indexes is None else [indexes[index] for index in theirs]
