"""What every handler of AccountService works with."""

from typing import Any

import grpc

from runtime.clock import Clock
from server.accounts.changes import Changes
from store.database import Database

Context = grpc.aio.ServicerContext[Any, Any]


class Handlers:
    """The base of the handlers of each resource; one object is all of them at once."""

    def __init__(self, database: Database, clock: Clock, changes: Changes) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes
