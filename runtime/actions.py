"""Log actions: the values of the field `action` of a log line, by which operators search."""

from enum import StrEnum


class LogAction(StrEnum):
    """The action of a log line: its subject, a dot, and what happened; or one word."""

    # The life of a process.
    START = "start"
    LISTEN = "listen"
    LISTEN_HTTP = "listen.http"
    IDENTITY = "identity"  # how callers are identified
    COMPILED_UNUSED = "compiled.unused"  # Python does its work
    CERTIFICATE = "certificate"  # of TLS
    NO_SECRET_KEY = "secrets.no_key"
    TRACING = "tracing"  # whether traces are exported
    SERVING = "serving"
    NOT_SERVING = "not_serving"
    READY = "ready"
    NOT_READY = "not_ready"
    WORKER_ENDED = "worker.ended"
    WORKER_RUNS_AGAIN = "worker.runs_again"
    CONSOLE = "console"
    MONITORING = "monitoring"  # of several processes on one port
    METRIC_FAILED = "metric.failed"
    BACKLOG_FAILED = "backlog.failed"  # what waits in the database cannot be read
    DRAIN = "drain"
    DRAIN_INCOMPLETE = "drain.incomplete"
    CUT_OFF = "cut_off"
    STOPPED = "stopped"

    # Calls.
    CALL = "call"
    KEY_REVOKED = "revoked"
    INTERNAL_ERROR = "internal_error"
    ANSWER_TOO_LARGE = "answer_too_large"
    ACTIVITY_FAILED = "activity.failed"
    QUOTAS_FAILED = "quotas.failed"

    # Evaluation.
    COMMIT_FAILED = "commit.failed"
    EVENT_FAILED = "event.failed"
    EVALUATION_FAILED = "evaluation.failed"
    OPERATOR_EVENT_FAILED = "operator_event.failed"
    BACKFILL_FAILED = "backfill.failed"
    BACKFILLS_FAILED = "backfills.failed"
    TIMER_FAILED = "timer.failed"
    TIMERS_FAILED = "timers.failed"
    TIMERS_CAUGHT_UP = "timers.caught_up"
    ERASURE_FAILED = "erasure.failed"

    # Usage.
    USAGE_VOIDED = "usage.voided"

    # Streams of notifications.
    FEED_FAILED = "feed.failed"
    OMITTED_FAILED = "omitted.failed"
    FEED_LISTEN_LOST = "feed.listen_lost"
    FEED_NOTIFICATION_MISSING = "feed.notification_missing"

    # The audit log.
    AUDIT_FAILED = "audit.failed"
    DECISIONS_FAILED = "decisions.failed"

    # Deliveries.
    ATTEMPT = "attempt"
    ATTEMPT_FAILED = "attempt.failed"
    ATTEMPT_NO_NOTIFICATION = "attempt.no_notification"
    ATTEMPT_UNSIGNED = "attempt.unsigned"
    RECORD_DELAYED = "record.delayed"
    RECORD_FENCED = "record.fenced"
    RECORD_REFUSED = "record.refused"
    RECORD_SPLIT = "record.split"
    LEASE_EXPIRED = "lease.expired"
    LEASE_ORPHANED = "lease.orphaned"
    LISTEN_LOST = "listen.lost"
    REDELIVERY_FAILED = "redelivery.failed"
    WORKER_FAILED = "worker.failed"

    # Upkeep, of both processes.
    UPKEEP_DELAYED = "upkeep.delayed"
    UPKEEP_DROPPED = "upkeep.dropped"
    UPKEEP_FAILED = "upkeep.failed"

    # The database.
    DATABASE_FAILED = "database.failed"  # it failed one transaction
    DATABASE_LOST = "database.lost"  # a call or a task could not go on without it
    DATABASE_ENDED = "database.ended"  # the embedded one
    DATABASE_STARTED = "database.started"
    DATABASE_SLOW_START = "database.slow_start"
    DISK_RUNS_FULL = "disk.runs_full"
    DISK_HAS_SPACE = "disk.has_space"
    LOCK_WAIT = "lock.wait"
    MIGRATION_WAITS = "migration.waits"
    NODES_CHANGED = "nodes.changed"  # of a cluster: shards were moved
    NODES_FAILED = "nodes.failed"  # they could not be read
    TABLE_MOVED = "table.moved"  # to the nodes of a cluster
    LOCK_HOLDER_ENDED = "lock.holder_ended"
    LOCK_WATCH_FAILED = "lock.watch_failed"
    PROBE_FAILED = "probe.failed"
