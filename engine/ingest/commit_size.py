"""The size of commits: how many events the next commit of a lane may take.

A commit pays for each gauge that it moves. Where each gauge gets few events, a commit of twice the events moves less
than twice the gauges. So commits grow while more waits than they take, and are of the usual size otherwise: a change
of the rules waits for the commits in progress, and so does the answer to each event.
"""

from dataclasses import dataclass

from engine.limits import IngestLimits

SPARSE = 4  # events for each gauge that a commit moves, below which a larger commit is cheaper
CLOCK = 1e-6  # seconds; a commit that took no time by the clock took less


@dataclass(slots=True)
class CommitSize:
    """The limit of a lane's next commit, in events. It follows from the last commit alone."""

    limits: IngestLimits
    _grown: int | None = None  # set after a commit that a larger one may follow

    def limit(self, *, may_grow: bool) -> int:
        """The most events of the next commit. may_grow: whether no change of the rules waits for it."""
        return self._grown if may_grow and self._grown is not None else self.limits.commit_events

    def note(self, events: int, gauges: int, seconds: float, *, more_waits: bool) -> None:
        """Notes the last commit. gauges: that it moved. more_waits: whether it left events waiting."""
        self._grown = None
        if more_waits and events < SPARSE * gauges:
            in_time = int(events * self.limits.sustained_commit_seconds / max(seconds, CLOCK))
            most = min(self.limits.sustained_commit_events, in_time)
            if most > self.limits.commit_events:
                self._grown = most
