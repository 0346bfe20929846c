"""Reads regularly what ends soon, and shows its numbers."""

from runtime.clock import Clock
from runtime.monitoring.instruments import Instruments
from runtime.quotas import Quotas
from store.monitoring import ends
from store.monitoring.ends import Ends
from store.monitoring.reading import RegularReading
from store.postgres.database import Connection, Database

INTERVAL = 60.0  # seconds between two reads


class EndsWatch:
    """Reads how many API keys end soon, and how many quotas are nearly used."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        instruments: Instruments,
        defaults: Quotas,
        *,
        interval: float = INTERVAL,
    ) -> None:
        """defaults: quotas of organizations without own ones. interval: seconds between two reads."""

        async def read(connection: Connection) -> Ends:
            return await ends.read(connection, defaults, clock.now())

        self._reading = reading = RegularReading(database, read, name="keys and quotas", interval=interval)
        instruments.gauge(
            "tidemark_keys_expiring",
            "API keys that expire within 14 days and the last fifth of their lifetime, and were used in the last day;"
            f" {ends.MOST_COUNTED} at most.",
            lambda: None if reading.last is None else reading.last.keys,
        )
        instruments.gauge(
            "tidemark_quotas_nearly_used",
            "Organizations that use 80 % or more of their quota, by its kind.",
            lambda: (
                None
                if reading.last is None
                else {(kind.value,): float(number) for kind, number in reading.last.nearly_used.items()}
            ),
            labels=("quota",),
        )

    def start(self) -> None:
        """Begins to read."""
        self._reading.start()

    async def stop(self) -> None:
        """Ends the reads."""
        await self._reading.stop()

    async def read(self) -> None:
        """Reads once. Raises DatabaseUnavailable and TimeoutError."""
        await self._reading.read()
