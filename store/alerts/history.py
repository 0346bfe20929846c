"""The history of alert definitions: each change with its author, its time, and the definition after it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definition_json import version_from_json, version_json
from evaluator.definitions import AlertDefinition
from evaluator.exclusions import Excluded
from store.tables.alerts import alert_change


class ChangeKind(StrEnum):
    """How a definition was changed."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    RESET = "RESET"
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    ARCHIVED = "ARCHIVED"
    KEY_RELEASED = "KEY_RELEASED"


@dataclass(frozen=True)
class Author:
    """The author of a change: the id of its API key, or an empty id where no key is needed."""

    key_id: str = ""


@dataclass(frozen=True)
class AlertChange:
    """One change. definition: as it was after the change.

    customer_id, subscription_id: set where a wider alert was changed for one customer or subscription only.
    """

    change_number: int
    kind: ChangeKind
    author: Author
    customer_id: str | None
    subscription_id: str | None
    definition: AlertDefinition
    change_time: datetime


async def record_for_customer(
    connection: AsyncConnection,
    organization_id: int,
    kind: ChangeKind,
    definition: AlertDefinition,
    author: Author,
    now: datetime,
    target: Excluded,
) -> None:
    """Records a change of an alert for one customer or subscription, in the transaction that makes it."""
    await connection.execute(
        insert(alert_change).values(
            organization_id=organization_id,
            alert_id=definition.alert_id,
            kind=kind,
            version=definition.version,
            key_id=author.key_id,
            customer_id=target.customer_id,
            subscription_id=target.subscription_id,
            definition=version_json(definition),
            change_time=now,
        )
    )


async def record_many(
    connection: AsyncConnection,
    organization_id: int,
    changes: Sequence[tuple[ChangeKind, AlertDefinition]],
    author: Author,
    now: datetime,
) -> None:
    """Records changes of several alerts as a whole, in the transaction that makes them."""
    await connection.execute(
        insert(alert_change),
        [
            {
                "organization_id": organization_id,
                "alert_id": definition.alert_id,
                "kind": kind,
                "version": definition.version,
                "key_id": author.key_id,
                "definition": version_json(definition),
                "change_time": now,
            }
            for kind, definition in changes
        ],
    )


async def list_page(
    connection: AsyncConnection, organization_id: int, current: AlertDefinition, *, after: int | None, limit: int
) -> list[AlertChange]:
    """Up to `limit` changes of an alert, the newest first; `after` is the number of the last change seen."""
    statement = (
        select(alert_change)
        .where(alert_change.c.organization_id == organization_id, alert_change.c.alert_id == current.alert_id)
        .order_by(alert_change.c.change_number.desc())
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(alert_change.c.change_number < after)
    rows = (await connection.execute(statement)).mappings()
    return [
        AlertChange(
            change_number=row["change_number"],
            kind=ChangeKind(row["kind"]),
            author=Author(row["key_id"]),
            customer_id=row["customer_id"],
            subscription_id=row["subscription_id"],
            definition=version_from_json(current, row["definition"], row["version"], row["change_time"]),
            change_time=row["change_time"],
        )
        for row in rows
    ]
