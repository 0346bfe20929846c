"""Reports of events that cannot be recorded: an operator event for each alert, at most one in a window of time."""

import logging
from collections.abc import Sequence
from datetime import datetime

from engine.ingest.containment import Refused
from runtime.actions import LogAction
from runtime.clock import Clock
from store.notifications import evaluation_failures
from store.postgres.database import Database
from store.postgres.retries import repeated
from webhooks.operator_events import EvaluationFailure

logger = logging.getLogger(__name__)


class RefusalReports:
    """Writes the operator events of one organization."""

    def __init__(self, database: Database, clock: Clock, organization_id: int) -> None:
        self._database = database
        self._clock = clock
        self._organization_id = organization_id
        self._reported: dict[str | None, int] = {}  # alerts of which operators got an event, and its window of time

    async def write(self, refused: Sequence[Refused]) -> None:
        """Writes operator events of alerts that could not be recorded; its own failure changes no answer."""
        now = self._clock.now()
        failures = {one.alert_id: one for one in reversed(refused)}  # the first of each alert
        window = evaluation_failures.window(now)
        new = [one for alert_id, one in failures.items() if self._reported.get(alert_id) != window]
        if not new:
            return
        try:
            await repeated(lambda: self._add_events(new, now))
        except Exception:
            logger.exception(
                "an operator event could not be written", extra={"action": LogAction.OPERATOR_EVENT_FAILED}
            )
            return
        self._reported = {alert_id: one for alert_id, one in self._reported.items() if one == window}
        self._reported |= dict.fromkeys(failures, window)

    async def _add_events(self, refused: Sequence[Refused], now: datetime) -> None:
        """Safe to repeat: their ids are digests."""
        failures = [EvaluationFailure(one.alert_id, one.customer_id, one.event_id) for one in refused]
        async with self._database.transaction() as connection:
            await evaluation_failures.add(connection, self._organization_id, failures, now)
