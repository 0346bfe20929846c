"""The base of the handlers of AccountService."""

from typing import Any, Protocol

import grpc

from engine.facts.changes import FactChanges
from runtime.clock import Clock
from store.postgres.database import Database

Context = grpc.aio.ServicerContext[Any, Any]


class Backfills(Protocol):
    """Evaluates alerts on what exists already."""

    def wake(self, organization_id: int) -> None:
        """Notes that an alert of that organization waits to be evaluated; returns at once."""


class Handlers:
    """The base of the handlers of each resource; one object is all of them at once."""

    def __init__(self, database: Database, clock: Clock, changes: FactChanges, backfills: Backfills) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes
        self._backfills = backfills
