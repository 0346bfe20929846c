"""The NOTIFY channels by which servers and notifiers wake each other."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

OUTBOX_CHANNEL = "tidemark_outbox"  # outbox rows were committed. Payload: the organization's number, or empty
DUE_CHANNEL = "tidemark_due"  # deliveries became due, but not by a fan-out or by time


async def announce_due_deliveries(connection: AsyncConnection) -> None:
    """Wakes the notifiers when the transaction commits: deliveries may be due, or endpoints may accept them again."""
    await connection.execute(text(f"NOTIFY {DUE_CHANNEL}"))
