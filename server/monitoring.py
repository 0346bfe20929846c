"""The metrics of a server process."""

from engine.enforcement.monitoring import EnforcementMonitoring
from engine.ingest.monitoring import IngestMonitoring
from engine.ingest.pending import PendingEvents
from engine.monitoring import BackfillsMonitoring, ChangesMonitoring, TimersMonitoring
from engine.rules.monitoring import RulesMonitoring
from runtime.monitoring.instruments import Instruments
from server.alerts.subscribers.feeds import Feeds
from server.calls.monitoring import CallMonitoring
from server.enforcement.monitoring import CheckMonitoring
from server.tls import CertificateFiles


class ServerMonitoring:
    """What the parts of one server measure."""

    def __init__(self, instruments: Instruments | None = None) -> None:
        self.instruments = instruments = instruments or Instruments()
        self.calls = CallMonitoring(instruments)
        self.checks = CheckMonitoring(instruments)
        self.enforcement = EnforcementMonitoring(instruments)
        self.ingest = IngestMonitoring(instruments)
        self.rules = RulesMonitoring(instruments)
        self.timers = TimersMonitoring(instruments)
        self.backfills = BackfillsMonitoring(instruments)
        self.changes = ChangesMonitoring(instruments)

    def add_pending(self, pending: PendingEvents) -> None:
        """Adds the events that wait for the database."""
        gauge = self.instruments.gauge
        gauge("tidemark_ingest_pending_events", "Events that wait for the database.", lambda: pending.total)
        gauge(
            "tidemark_ingest_pending_events_limit",
            "How many may wait before batches are refused and streams wait.",
            lambda: pending.most,
        )

    def add_certificate(self, files: CertificateFiles) -> None:
        """Adds when the certificates of the port begin and end."""
        gauge = self.instruments.gauge
        gauge(
            "tidemark_tls_not_before_timestamp_seconds",
            "From when on the certificate of a file is valid that ends first, as Unix time.",
            lambda: {(name,): one.start.timestamp() for name, one in files.validity().items()},
            labels=("file",),
        )
        gauge(
            "tidemark_tls_not_after_timestamp_seconds",
            "When the certificate of a file ends that ends first, as Unix time.",
            lambda: {(name,): one.end.timestamp() for name, one in files.validity().items()},
            labels=("file",),
        )

    def add_feeds(self, feeds: Feeds) -> None:
        """Adds the subscribers of notifications."""
        gauge = self.instruments.gauge
        gauge("tidemark_feed_subscribers", "Open streams of WatchNotifications.", lambda: feeds.subscribers)
        gauge("tidemark_feed_tails", "Organizations that have any such stream here.", lambda: feeds.tails)
