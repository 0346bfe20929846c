"""What every handler of AccountService works with."""

from typing import Any, Protocol

import grpc

from engine.facts.changes import Changes
from runtime.clock import Clock
from store.identity.keys import Organization
from store.limits.limits import LimitSubject
from store.postgres.database import Connection, Database

Context = grpc.aio.ServicerContext[Any, Any]


class Visits(Protocol):
    """Whoever evaluates alerts on gauges that nothing has moved."""

    def wake(self, organization_id: int) -> None:
        """Says that an alert of that organization waits to be evaluated; returns at once."""

    async def look_again(
        self, connection: Connection, organization: Organization, epoch: int, subject: LimitSubject
    ) -> None:
        """Evaluates whom a limit limits that was changed, in the transaction that did so; wake it afterwards."""

    async def look_at_customer(
        self, organization: Organization, customer_id: str, *, subscriptions_only: bool = False
    ) -> None:
        """Evaluates alerts on usage for a customer that was changed, or whose subscription was; after the commit."""


class Handlers:
    """The base of the handlers of each resource; one object is all of them at once."""

    def __init__(self, database: Database, clock: Clock, changes: Changes, visits: Visits) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes
        self._visits = visits
