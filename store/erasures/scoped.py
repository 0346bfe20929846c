"""Alerts and limits of one customer alone: they end when the customer is erased."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Archives the alerts whose scope is the customer or one of its subscriptions.
_ARCHIVE = text("""
UPDATE alert
SET state = 'ARCHIVED', uniqueness_key_held = false, natural_key = NULL, visit_after = NULL, version = version + 1,
    changed_epoch = :epoch, update_time = :now, archive_time = coalesce(archive_time, :now)
WHERE organization_id = :organization_id AND customer_id = :customer_id
  AND (state <> 'ARCHIVED' OR uniqueness_key_held)
""")

# Removes the amounts of the customer's limits, as a put without an amount does.
_REMOVE_LIMITS = text("""
UPDATE usage_limit SET amount = NULL, changed_epoch = :epoch, update_time = :now
WHERE organization_id = :organization_id AND customer_id = :customer_id
""")


async def end(connection: AsyncConnection, organization_id: int, customer_id: str, epoch: int, now: datetime) -> None:
    """Archives the alerts on the customer or its subscriptions, and removes its limits.

    The transaction has raised the organization's epoch to `epoch`.
    """
    values = {"organization_id": organization_id, "customer_id": customer_id, "epoch": epoch, "now": now}
    await connection.execute(_ARCHIVE, values)
    await connection.execute(_REMOVE_LIMITS, values)
