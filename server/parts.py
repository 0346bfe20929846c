"""The parts of a server process: what its handlers use, and the background work that starts and stops with it."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from engine.activity import UsageActivity
from engine.backfill.backfills import Backfills
from engine.changes.groups import ChangeGroups
from engine.enforcement.checks import Checks
from engine.enforcement.expiry import Expiry
from engine.enforcement.pipeline import EnforcementPipeline
from engine.erasures import Erasures
from engine.ingest.nodes import Nodes
from engine.ingest.pending import BESIDE, PendingEvents
from engine.ingest.pipeline import Pipeline
from engine.limits import DEFAULT_LIMITS, EngineLimits
from engine.puts.customer_evaluations import CustomerEvaluations
from engine.puts.fact_puts import FactPuts
from engine.puts.new_metrics import NewMetrics
from engine.quotas.organization_quotas import OrganizationQuotas
from engine.redelivery_jobs import RedeliveryJobs
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from engine.timers import Timers
from engine.upkeep import Upkeep
from runtime.clock import Clock
from runtime.configuration import Configuration
from runtime.fair_semaphore import FairSemaphore
from server.alerts.subscribers.feeds import Feeds
from server.audit.watched_logs import WatchedLogs
from server.calls.lifecycle import Drain
from server.enforcement.watching import DecisionWatch
from server.limits import DEFAULT_SERVER_LIMITS, ServerLimits
from server.monitoring import ServerMonitoring
from store.postgres.database import Database


@dataclass(frozen=True)
class Parts:
    """One of each in a process."""

    configuration: Configuration
    database: Database
    clock: Clock
    quotas: OrganizationQuotas
    drain: Drain
    upkeep: Upkeep
    rules: RulesRegistry
    transactions: Transactions
    backfills: Backfills
    timers: Timers
    expiry: Expiry
    redeliveries: RedeliveryJobs
    erasures: Erasures
    feeds: Feeds
    audit_logs: WatchedLogs
    pipeline: Pipeline
    enforcement: EnforcementPipeline
    checks: Checks
    decision_watch: DecisionWatch
    changes: ChangeGroups
    evaluations: CustomerEvaluations
    puts: FactPuts
    new_metrics: NewMetrics
    limits: ServerLimits
    monitoring: ServerMonitoring
    activity: UsageActivity


def build_parts(
    configuration: Configuration,
    database: Database,
    clock: Clock,
    ingest_gate: FairSemaphore,
    calls_gate: FairSemaphore,
    *,
    engine_limits: EngineLimits = DEFAULT_LIMITS,
    server_limits: ServerLimits = DEFAULT_SERVER_LIMITS,
    monitoring: ServerMonitoring | None = None,
    nodes: Nodes | None = None,
) -> Parts:
    """The parts, not started.

    ingest_gate: the connections that transactions of usage may use. calls_gate: those that calls may use.
    monitoring: gets what they measure. nodes: the workers of the database's cluster, if it is one.
    """
    monitoring = monitoring or ServerMonitoring()
    shown_epoch = None if nodes is None else nodes.shown_epoch
    rules = RulesRegistry(max_groups=engine_limits.groups, monitoring=monitoring.rules, shown_epoch=shown_epoch)
    quotas = OrganizationQuotas(database, configuration.quotas, interval=engine_limits.quota_interval)
    pending = PendingEvents(
        configuration.max_pending_events,
        configuration.organization_pending_events,
        beside=configuration.max_pending_events // BESIDE,
    )
    monitoring.add_pending(pending)
    activity = UsageActivity(database, clock)
    pipeline = Pipeline(
        database,
        clock,
        configuration.grace,
        rules,
        writers=configuration.ingest_writers,
        pending=pending,
        gate=ingest_gate,
        is_changing=lambda organization_id: changes.is_waiting(organization_id),
        limits=engine_limits.ingest,
        native=configuration.native,
        monitoring=monitoring.ingest,
        activity=activity,
        nodes=nodes,
    )
    ingest_seats = ingest_gate.free
    changes = ChangeGroups(
        database,
        clock,
        calls_gate,
        pipeline.is_ingesting,
        engine_limits.changes,
        monitoring=monitoring.changes,
        max_alerts=quotas.max_alerts,
    )
    transactions = Transactions(database, clock, configuration.grace, rules)
    evaluations = CustomerEvaluations(database, clock, transactions, calls_gate, limits=engine_limits.evaluations)
    backfills = Backfills(
        database,
        clock,
        transactions,
        limits=engine_limits.backfills,
        busy=lambda: ingest_gate.free < ingest_seats,
        monitoring=monitoring.backfills,
    )
    feeds = Feeds(
        database,
        max_subscribers=configuration.max_watchers,
        organization_subscribers=configuration.organization_watchers,
        limits=server_limits.feeds,
    )
    monitoring.add_feeds(feeds)
    enforcement = EnforcementPipeline(
        database,
        clock,
        configuration.grace,
        writers=configuration.ingest_writers,
        pending=pending,
        gate=ingest_gate,
        rules=RulesRegistry(shown_epoch=shown_epoch),
        limits=engine_limits.enforcement,
        native=configuration.native,
        monitoring=monitoring.enforcement,
    )
    checks = Checks(database, clock, configuration.grace, gate=calls_gate)
    decision_watch = DecisionWatch(
        checks,
        clock,
        max_watchers=configuration.max_watchers,
        organization_watchers=configuration.organization_watchers,
        interval=server_limits.decision_interval,
    )
    monitoring.checks.add_watched(decision_watch)
    return Parts(
        configuration,
        database,
        clock,
        quotas,
        Drain(),
        Upkeep(
            database,
            clock,
            configuration.retention,
            configuration.notification_retention,
            audit_retention=configuration.audit_retention,
        ),
        rules,
        transactions,
        backfills,
        Timers(database, clock, transactions, limits=engine_limits.timers, monitoring=monitoring.timers),
        Expiry(database, clock, transactions, limits=engine_limits.enforcement, monitoring=monitoring.enforcement),
        RedeliveryJobs(database, clock),
        Erasures(database, clock),
        feeds,
        WatchedLogs(
            database,
            max_subscribers=configuration.max_watchers,
            organization_subscribers=configuration.organization_watchers,
            poll_interval=server_limits.audit_poll_interval,
        ),
        pipeline,
        enforcement,
        checks,
        decision_watch,
        changes,
        evaluations,
        FactPuts(clock, changes, evaluations, rules, engine_limits.new_metrics),
        NewMetrics(database, backfills, engine_limits.new_metrics.later),
        server_limits,
        monitoring,
        activity,
    )


@contextlib.asynccontextmanager
async def started(parts: Parts) -> AsyncIterator[None]:
    """Runs the background work for the time of the block; stops it in reverse order, changes first."""
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(parts.quotas.stop)
        await parts.quotas.start()
        stack.push_async_callback(parts.activity.stop)
        parts.activity.start()
        stack.push_async_callback(parts.upkeep.stop)
        await parts.upkeep.start()
        stack.push_async_callback(parts.backfills.stop)
        parts.backfills.start()
        stack.push_async_callback(parts.new_metrics.stop)
        parts.new_metrics.start()
        stack.push_async_callback(parts.evaluations.stop)
        parts.evaluations.start()
        stack.push_async_callback(parts.timers.stop)
        parts.timers.start()
        stack.push_async_callback(parts.expiry.stop)
        parts.expiry.start()
        stack.push_async_callback(parts.redeliveries.stop)
        parts.redeliveries.start()
        stack.push_async_callback(parts.erasures.stop)
        parts.erasures.start()
        stack.push_async_callback(parts.feeds.stop)
        parts.feeds.start()
        stack.push_async_callback(parts.decision_watch.stop)
        parts.decision_watch.start()
        stack.push_async_callback(parts.audit_logs.stop)
        parts.audit_logs.start()
        stack.push_async_callback(parts.pipeline.drain)
        stack.push_async_callback(parts.enforcement.drain)
        stack.push_async_callback(parts.changes.drain)
        stack.push_async_callback(parts.puts.drain)
        yield
