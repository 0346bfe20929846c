"""The limits and intervals of a server that have no setting."""

from dataclasses import dataclass

from server.alerts.subscribers.feed_limits import DEFAULT_FEED_LIMITS, FeedLimits
from server.audit.watched_logs import POLL_INTERVAL
from server.authentication import api_keys, revocation
from server.calls.answer_size import DEFAULT_ROOM
from server.enforcement.watching import INTERVAL
from server.interceptors.deadline import INFRASTRUCTURE_REQUEST
from server.interceptors.unauthenticated_limits import MAX_UNIDENTIFIED
from server.streams.ordered_answers import MAX_STREAM_EVENTS
from store.postgres.bounded_pages import MAX_EXAMINED
from store.postgres.counting import MAX_TOTAL_SIZE
from store.postgres.probe import DEFAULT_INTERVALS, ProbeIntervals
from store.views.customer_views import GAUGES_AT_ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What the parts of a server get when it starts. Production uses the defaults; tests pass smaller values.

    feeds: the reading of feeds for subscribers.
    probe: the checks of the database.
    stream_events: events of one usage stream that are read and not answered yet; a single batch may have more.
    unidentified_calls: calls whose keys are read from the database at the same time.
    infrastructure_request: seconds that a request of health or reflection may take to arrive.
    revocation_interval: seconds between checks for revoked keys.
    revocation_grace: seconds in which a stream of a revoked key can answer what it has read.
    audit_poll_interval: seconds between polls for new audit entries, while a stream waits for them.
    decision_interval: seconds between two reads of a watched decision, at least.
    examined_audit_entries: that a page of ListAuditEntries reads, with filters that no index answers.
    page_gauges: gauges of all alerts on a page of ListCustomerAlerts, unless a single alert has more.
    examined_alerts: that a page of ListAlerts or ListCustomerAlerts reads, with filters that no index answers.
    counted_deliveries: up to which ListDeliveries counts for its total_size.
    notification_bytes: of the notifications of a page, unless the request asks for more, or a single one has more.
    """

    feeds: FeedLimits = DEFAULT_FEED_LIMITS
    probe: ProbeIntervals = DEFAULT_INTERVALS
    stream_events: int = MAX_STREAM_EVENTS
    unidentified_calls: int = MAX_UNIDENTIFIED
    infrastructure_request: float = INFRASTRUCTURE_REQUEST
    revocation_interval: float = api_keys.POLL_INTERVAL
    revocation_grace: float = revocation.GRACE
    audit_poll_interval: float = POLL_INTERVAL
    decision_interval: float = INTERVAL
    examined_audit_entries: int = MAX_EXAMINED
    page_gauges: int = GAUGES_AT_ONCE
    examined_alerts: int = MAX_EXAMINED
    counted_deliveries: int = MAX_TOTAL_SIZE
    notification_bytes: int = DEFAULT_ROOM


DEFAULT_SERVER_LIMITS = ServerLimits()
