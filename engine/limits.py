"""The engine's limits: what one transaction, query or commit takes at most, and the pauses of backfills and changes.

A server runs with the defaults. A test passes lower limits, so that it reaches them with little data.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class BackfillLimits:
    """Limits of `Backfills`."""

    customers_per_step: int = 500  # customers of one transaction
    polling_interval: float = 5.0  # seconds; for backfills that another replica left when it ended
    retry_interval: float = 1.0  # seconds at most between two tries while the database is away


@dataclass(frozen=True)
class TimerLimits:
    """Limits of `Timers`."""

    customers_at_once: int = 200  # customers of one transaction
    sweep: int = 2_000  # customers that one query finds


@dataclass(frozen=True)
class IngestLimits:
    """Limits of `Pipeline`.

    containment_commits: the most commits that are tried instead of one that failed. An alert that cannot be recorded
    takes two, an event that cannot be stored about two for each doubling of the customers and of that customer's
    events.
    """

    commit_events: int = 5_000  # of one commit, unless a single batch brings more
    idle_organizations: int = 10_000  # lanes kept for organizations that send no usage at present
    containment_commits: int = 200


@dataclass(frozen=True)
class ChangeLimits:
    """Limits of `ChangeGroups`.

    rows, seconds: of one group; usage waits meanwhile. A single change may have more. share: of the time that usage
    waits for groups, at most, while it comes in.
    """

    rows: int = 200
    seconds: float = 0.1
    share: float = 0.15
    longest_pause: float = 0.5  # seconds


@dataclass(frozen=True)
class EvaluationLimits:
    """Limits of `CustomerEvaluations`."""

    customers_at_once: int = 100  # customers of one transaction
    polling_interval: float = 5.0  # seconds; for customers that another process left when it ended
    retry_interval: float = 1.0  # seconds at most between two tries while the database is away


@dataclass(frozen=True)
class EngineLimits:
    """The limits of the engine in one server."""

    backfills: BackfillLimits = field(default_factory=BackfillLimits)
    timers: TimerLimits = field(default_factory=TimerLimits)
    ingest: IngestLimits = field(default_factory=IngestLimits)
    changes: ChangeLimits = field(default_factory=ChangeLimits)
    evaluations: EvaluationLimits = field(default_factory=EvaluationLimits)


DEFAULT_LIMITS = EngineLimits()
