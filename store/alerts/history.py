"""The history of alert definitions: who changed one, when and how, and what it was afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import (
    AlertDefinition,
    DefinitionState,
    condition_from_json,
    condition_json,
    thresholds_from_json,
    thresholds_json,
)
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
    """Who asks for a change: the id of an API key, or nothing where none was needed."""

    key_id: str = ""


@dataclass(frozen=True)
class AlertChange:
    """One change. customer_id, subscription_id: of a change that is about one of those whom a wider alert covers.

    definition: as it was afterwards.
    """

    change_number: int
    kind: ChangeKind
    author: Author
    customer_id: str | None
    subscription_id: str | None
    definition: AlertDefinition
    change_time: datetime


async def record(
    connection: AsyncConnection,
    organization_id: int,
    kind: ChangeKind,
    definition: AlertDefinition,
    author: Author,
    now: datetime,
    *,
    customer_id: str | None = None,
    subscription_id: str | None = None,
) -> None:
    """Notes a change, in the transaction that makes it."""
    await connection.execute(
        insert(alert_change).values(
            organization_id=organization_id,
            alert_id=definition.alert_id,
            kind=kind,
            version=definition.version,
            key_id=author.key_id,
            customer_id=customer_id,
            subscription_id=subscription_id,
            definition=_changing_json(definition),
            change_time=now,
        )
    )


async def list_page(
    connection: AsyncConnection, organization_id: int, current: AlertDefinition, *, after: int | None, limit: int
) -> list[AlertChange]:
    """Up to `limit` changes of an alert, the newest first; `after` is the number of the last one seen."""
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
            definition=_as_it_was(current, row["definition"], row["version"], row["change_time"]),
            change_time=row["change_time"],
        )
        for row in rows
    ]


def _changing_json(definition: AlertDefinition) -> dict[str, Any]:
    """What a change may change."""
    return {
        "name": definition.name,
        "state": definition.state.value,
        "condition": condition_json(definition.condition),
        "thresholds": thresholds_json(definition.thresholds),
        "uniqueness_key_held": definition.uniqueness_key_held,
        "archived": definition.archive_time is not None,
    }


def _as_it_was(
    current: AlertDefinition, stored: Mapping[str, Any], version: int, change_time: datetime
) -> AlertDefinition:
    return replace(
        current,
        name=stored["name"],
        state=DefinitionState(stored["state"]),
        condition=condition_from_json(current.condition.condition_type, stored["condition"]),
        thresholds=thresholds_from_json(stored["thresholds"]),
        uniqueness_key_held=stored["uniqueness_key_held"],
        version=version,
        update_time=change_time,
        archive_time=current.archive_time if stored["archived"] else None,
        visit_after=None,
    )
