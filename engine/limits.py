"""The engine's limits: what one transaction, query or commit takes at most, and the pauses of backfills and changes.

A server runs with the defaults. A test passes lower limits, so that it reaches them with little data.
"""

from dataclasses import dataclass, field

from evaluator.definitions import MAX_SPEND_ALERTS
from evaluator.exclusions import MAX_GROUPS
from store.alerts.backfills_of_metrics import PartSize

# Evaluations of one alert on one gauge, about, in one transaction that evaluates an alert on what exists: with a
# thousand alerts that all reach a threshold, of one gauge. Changes, and with them usage, wait for the transaction.
EVALUATIONS_AT_ONCE = 1_000


@dataclass(frozen=True)
class BackfillLimits:
    """Limits of `Backfills`.

    fast_step_seconds, slow_step_seconds: after a faster or slower step the next one takes more or fewer customers.
    busy_share: the share of the time in which backfills work while the process counts usage.
    """

    customers_per_step: int = 500  # customers of one transaction at most
    quiet_per_step: int = 2_000  # customers of which one statement looks for quiet gauges
    first_size: int = 250  # customers, or alerts that name a customer, of a first step
    gauges_per_step: int = 500  # gauges of one transaction at most
    evaluations_per_step: int = EVALUATIONS_AT_ONCE
    alerts_per_step: int = 500  # alerts that name a customer, of one transaction at most
    large_customer: int = 20_000  # stored events, above which a customer's groups are counted outside of the lock
    fast_step_seconds: float = 0.1
    slow_step_seconds: float = 0.5
    busy_share: float = 0.4
    longest_pause: float = 0.5  # seconds between two rounds
    shortest_round: float = 0.03  # seconds between the beginnings of two rounds
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
    events. sustained_commit_events, sustained_commit_seconds: see `commit_size`.
    """

    commit_events: int = 10_000  # of one commit, unless a single batch brings more
    sustained_commit_events: int = 20_000  # of one commit while usage of many gauges keeps coming
    sustained_commit_seconds: float = 0.25  # how long such a commit may take
    commit_events_beside_light: int = 1_000  # of one commit, also of a larger batch, beside a light neighbour
    idle_organizations: int = 10_000  # lanes kept for organizations that send no usage at present
    containment_commits: int = 200


@dataclass(frozen=True)
class EnforcementLimits:
    """Limits of `EnforcementPipeline` and of the expiry of reservations.

    lane_requests: those of an organization that wait or are being committed, for each of its lanes: few lanes have
    large groups, and each commit has a cost. slow_commit: seconds after which other customers do not wait for a
    commit: one of its customers may be locked, or be counted anew. divided_commits: the most commits that are tried
    instead of one that failed. expiries: of one transaction.
    """

    commit_requests: int = 1_000  # of one commit, unless a single call brings more
    lane_requests: int = 128
    slow_commit: float = 0.2
    idle_organizations: int = 10_000  # lanes kept for organizations that send no requests at present
    divided_commits: int = 200
    expiries: int = 500
    sweep: int = 5_000  # reservations that one query finds


@dataclass(frozen=True)
class ChangeLimits:
    """Limits of `ChangeGroups`.

    rows, seconds: of one group; usage waits meanwhile. A single change may have more. share: the part of the time in
    which a group may hold the lock or wait for it while usage comes in. For most of that part, commits of usage that
    had begun before go on. spend_alerts: of each type on cost, of one subscription or plan, without archived ones.
    """

    rows: int = 200
    seconds: float = 0.1
    share: float = 0.3
    longest_pause: float = 0.25  # seconds
    spend_alerts: int = MAX_SPEND_ALERTS


@dataclass(frozen=True)
class EvaluationLimits:
    """Limits of `CustomerEvaluations`."""

    customers_at_once: int = 100  # customers of one transaction
    gauges_at_once: int = 500  # of one transaction, because changes, and with them usage, wait for it
    polling_interval: float = 5.0  # seconds; for customers that another process left when it ended
    retry_interval: float = 1.0  # seconds at most between two tries while the database is away


UNDER_THE_LOCK = PartSize(examined=1_000, begun=100)
LATER = PartSize(examined=10_000, begun=500)


@dataclass(frozen=True)
class NewMetricLimits:
    """Limits of `NewMetrics`.

    under_the_lock: of the part that begins in the transaction that creates the metric; usage waits for it. later: of
    each further part.
    """

    under_the_lock: PartSize = UNDER_THE_LOCK
    later: PartSize = LATER


@dataclass(frozen=True)
class EngineLimits:
    """The limits of the engine in one server.

    groups: of one alert and customer, or subscription, in one billing period. quota_interval: seconds between two
    exchanges of what processes use of quotas.
    """

    groups: int = MAX_GROUPS
    quota_interval: float = 1.0
    backfills: BackfillLimits = field(default_factory=BackfillLimits)
    timers: TimerLimits = field(default_factory=TimerLimits)
    ingest: IngestLimits = field(default_factory=IngestLimits)
    enforcement: EnforcementLimits = field(default_factory=EnforcementLimits)
    changes: ChangeLimits = field(default_factory=ChangeLimits)
    evaluations: EvaluationLimits = field(default_factory=EvaluationLimits)
    new_metrics: NewMetricLimits = field(default_factory=NewMetricLimits)


DEFAULT_LIMITS = EngineLimits()
