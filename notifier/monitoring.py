"""The monitoring of a notifier process: its port, and the metrics that its worker does not count."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from notifier.metrics import Metrics
from notifier.readiness import Readiness
from notifier.worker import Worker
from runtime.clock import Clock
from runtime.monitoring.addresses import Address
from runtime.monitoring.build import add_build_info
from runtime.monitoring.port import MonitoredProcess, monitoring_port
from runtime.monitoring.process import process_metrics
from store import migrate
from store.embedded.monitoring import embedded_metrics
from store.monitoring.pools import add_pool
from store.monitoring.watch import BacklogWatch
from store.postgres.database import Database
from store.postgres.lock_watch import LockWatch


class NotifierMonitoring:
    """Shows one notifier."""

    def __init__(
        self, database: Database, clock: Clock, metrics: Metrics, worker: Worker, lock_watch: LockWatch
    ) -> None:
        self._instruments = metrics.instruments
        self._worker = worker
        self._backlog = BacklogWatch(database, clock, self._instruments)
        gauge = self._instruments.gauge
        gauge("tidemark_notifier_in_flight", "Deliveries that this process holds.", lambda: worker.in_flight)
        gauge("tidemark_notifier_concurrency", "Deliveries that it may hold at most.", lambda: worker.concurrency)
        gauge(
            "tidemark_notifier_results_waiting", "Results that are not written yet.", lambda: worker.results_waiting
        )
        add_build_info(self._instruments, schema_revision=migrate.head())
        add_pool(self._instruments, database, lock_watch)

    @asynccontextmanager
    async def shown(self, addresses: Sequence[Address], readiness: Readiness) -> AsyncIterator[int | None]:
        """Shows it on these addresses while the block runs; yields the first port. Raises CannotMonitor."""

        def is_ready() -> bool:
            return self._worker.is_ready and readiness.takes_writes

        if not addresses:
            yield None
            return
        instruments = self._instruments
        instruments.gauge(
            "tidemark_ready",
            "1 if the process can be used: the database accepts writes, and the process does not drain.",
            lambda: float(is_ready()),
        )
        async with AsyncExitStack() as stack:
            stack.enter_context(process_metrics(instruments))
            await stack.enter_async_context(embedded_metrics(instruments))
            stack.push_async_callback(self._backlog.stop)
            self._backlog.start()
            port = monitoring_port(addresses, MonitoredProcess(instruments.registry, is_ready))
            yield await stack.enter_async_context(port)
