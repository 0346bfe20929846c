"""Operator events about hard limits that refused usage: one for each meter, which is a limit and a window of time.

The meter's row says when the last one was written, under the lock of its customer's wallet. So the ids need not be
the same on all replicas.
"""

from collections.abc import Sequence
from datetime import datetime

from store.notifications.operator_events import add as add_events
from store.postgres.database import Connection
from webhooks.operator_events import LimitRefusal, OperatorEvent


async def add(connection: Connection, organization_id: int, refusals: Sequence[LimitRefusal], now: datetime) -> None:
    """Writes an operator event for each refusal."""
    await add_events(connection, [OperatorEvent(organization_id, "", one.notice) for one in refusals], now)
