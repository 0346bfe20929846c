"""Reads the backlog regularly, and shows the last one that was read: no scrape waits for the database."""

from collections.abc import Callable
from datetime import datetime

from evaluator.enforcement.reservations import GRACE
from runtime.clock import Clock
from runtime.monitoring.instruments import Instruments
from store.monitoring import backlog
from store.monitoring.backlog import Backlog
from store.monitoring.reading import RegularReading
from store.postgres.database import Connection, Database

INTERVAL = 10.0  # seconds between two reads


class BacklogWatch:
    """Reads the backlog, and how far PostgreSQL's clock is ahead."""

    def __init__(
        self, database: Database, clock: Clock, instruments: Instruments, *, interval: float = INTERVAL
    ) -> None:
        """interval: seconds between two reads."""
        self._clock = clock
        self._skew = 0.0  # seconds that PostgreSQL's clock is ahead
        self._reading = RegularReading(database, self._read, name="backlog", interval=interval)
        self._add_to(instruments)

    def start(self) -> None:
        """Begins to read."""
        self._reading.start()

    async def stop(self) -> None:
        """Ends the reads."""
        await self._reading.stop()

    async def read(self) -> None:
        """Reads the backlog once. Raises DatabaseUnavailable and TimeoutError."""
        await self._reading.read()

    async def _read(self, connection: Connection) -> Backlog:
        began = self._clock.now()
        found = await backlog.read(connection)
        ended = self._clock.now()
        self._skew = (found.read_time - (began + (ended - began) / 2)).total_seconds()
        return found

    def _add_to(self, instruments: Instruments) -> None:
        def shown(name: str, description: str, read: Callable[[Backlog], float | None]) -> None:
            def value() -> float | None:
                last = self._reading.last
                return None if last is None else read(last)

            instruments.gauge(name, description, value)

        shown(
            "tidemark_outbox_notifications",
            f"Notifications that wait for the fan-out to endpoints, {backlog.MOST_COUNTED} at most.",
            lambda found: found.outbox,
        )
        shown(
            "tidemark_outbox_oldest_age_seconds",
            "Age of the oldest notification that waits for the fan-out; 0 if none waits.",
            lambda found: self._age(found.oldest_outbox),
        )
        shown(
            "tidemark_deliveries_oldest_due_age_seconds",
            "How long a delivery has been due to an endpoint that may get it now; 0 if there is none.",
            lambda found: self._database_age(found, found.oldest_due_delivery),
        )
        shown(
            "tidemark_deliveries_oldest_waiting_age_seconds",
            "How long a delivery has been due to any endpoint, also one whose receiver fails; 0 if there is none.",
            lambda found: self._database_age(found, found.oldest_waiting_delivery),
        )
        shown(
            "tidemark_deliveries_due_endpoints",
            "Endpoints with a delivery that is due.",
            lambda found: found.due_endpoints,
        )
        shown(
            "tidemark_timers_oldest_due_age_seconds",
            "How long the oldest timer has been due; 0 if none is.",
            lambda found: self._age(found.next_timer),
        )
        shown(
            "tidemark_backfills",
            f"Alerts that are not evaluated on all existing usage yet, {backlog.MOST_COUNTED} at most.",
            lambda found: found.backfills,
        )
        shown(
            "tidemark_backfills_oldest_age_seconds",
            "Time since the last change of the alert whose backfill waits longest; 0 if there is none.",
            lambda found: self._age(found.oldest_backfill),
        )
        shown(
            "tidemark_feed_pending_notifications",
            f"Notifications without a position in the feed yet, {backlog.MOST_COUNTED} at most.",
            lambda found: found.feed,
        )
        shown(
            "tidemark_feed_oldest_pending_age_seconds",
            "Age of the oldest notification without a position in the feed; 0 if there is none.",
            lambda found: self._age(found.oldest_feed),
        )
        shown(
            "tidemark_feed_unseen_notifications",
            "Notifications without a position that do not show yet, of the first 200; their feeds wait for them.",
            lambda found: found.unseen_feed,
        )
        shown(
            "tidemark_enforcement_open_reservations",
            f"Reservations that are open, {backlog.MOST_COUNTED} at most.",
            lambda found: found.reservations,
        )
        shown(
            "tidemark_enforcement_oldest_overdue_age_seconds",
            "How long ago a reservation should have been given back because its grace has ended; 0 if there is none.",
            lambda found: self._age(None if found.next_expiry is None else found.next_expiry + GRACE),
        )
        shown(
            "tidemark_recharges_open",
            f"Recharges that wait for a report, {backlog.MOST_COUNTED} at most.",
            lambda found: found.recharges,
        )
        shown(
            "tidemark_recharges_oldest_open_age_seconds",
            "Age of the oldest recharge that waits for a report; 0 if none waits.",
            lambda found: self._age(found.oldest_recharge),
        )
        shown(
            "tidemark_recharge_policies_disabled",
            f"Recharge policies that have switched themselves off, {backlog.MOST_COUNTED} at most.",
            lambda found: found.disabled_recharge_policies,
        )
        shown(
            "tidemark_database_clock_skew_seconds",
            "How far PostgreSQL's clock is ahead of that of this process.",
            lambda found: self._skew,
        )
        shown(
            "tidemark_database_schema_revision",
            "Number of the last migration of the database.",
            lambda found: int(found.schema_revision),
        )

    def _age(self, time: datetime | None) -> float:
        """Seconds since a time of the servers' clocks, 0 if it lies ahead."""
        return 0.0 if time is None else max(0.0, (self._clock.now() - time).total_seconds())

    def _database_age(self, found: Backlog, time: datetime | None) -> float:
        """Seconds since a time of PostgreSQL's clock."""
        return 0.0 if time is None else max(0.0, (found.read_time - time).total_seconds())
