"""The keys that no two alerts of an organization can share, and the alerts that have them."""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

from sqlalchemy import ARRAY, ColumnElement, and_, any_, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import AlertDefinition
from store.alerts.change import ItemRefused, ItemsAlike
from store.tables.alerts import alert
from store.tables.base import Identifier


class UniqueBy(StrEnum):
    """The key that two alerts of an organization cannot have at the same time."""

    UNIQUENESS_KEY = "UNIQUENESS_KEY"
    NATURAL_KEY = "NATURAL_KEY"


class AlertConflict(Exception):
    """The alert `alert_id` has the key already that the new or changed alert needs.

    uniqueness_key: of the new or changed alert.
    """

    def __init__(self, key: UniqueBy, alert_id: str, uniqueness_key: str | None) -> None:
        super().__init__(f"{alert_id} has the same {key}")
        self.key = key
        self.alert_id = alert_id
        self.uniqueness_key = uniqueness_key


def keys_of(definition: AlertDefinition) -> list[tuple[UniqueBy, str]]:
    """The keys that an alert has."""
    found = []
    if definition.uniqueness_key is not None and definition.uniqueness_key_held:
        found.append((UniqueBy.UNIQUENESS_KEY, definition.uniqueness_key))
    if definition.natural_key is not None:
        found.append((UniqueBy.NATURAL_KEY, definition.natural_key))
    return found


async def holders(
    connection: AsyncConnection, organization_id: int, definitions: Sequence[AlertDefinition]
) -> dict[tuple[UniqueBy, str], str]:
    """The alerts that have keys of the definitions, by key."""
    keys = [key for definition in definitions for key in keys_of(definition)]
    columns = {
        UniqueBy.UNIQUENESS_KEY: (alert.c.uniqueness_key, alert.c.uniqueness_key_held),
        UniqueBy.NATURAL_KEY: (alert.c.natural_key, alert.c.natural_key.is_not(None)),
    }
    found = dict[tuple[UniqueBy, str], str]()
    for kind, (column, is_held) in columns.items():
        values = [value for of, value in keys if of is kind]
        if values:
            rows = await connection.execute(
                select(column, alert.c.alert_id).where(
                    alert.c.organization_id == organization_id,
                    is_held,
                    column == any_(cast(values, ARRAY(Identifier))),
                )
            )
            found |= {(kind, value): alert_id for value, alert_id in rows}
    return found


def refuse_alike(definitions: Mapping[int, AlertDefinition]) -> None:
    """Refuses two definitions of one change that have the same key. Raises ItemRefused with ItemsAlike.

    definitions: by the index of their item.
    """
    first: dict[tuple[UniqueBy, str], int] = {}
    for index, definition in definitions.items():
        for key, value in keys_of(definition):
            if (other := first.setdefault((key, value), index)) != index:
                raise ItemRefused(index, ItemsAlike(other, key))


async def find_conflict(
    connection: AsyncConnection, organization_id: int, definition: AlertDefinition, moved: Collection[str] = ()
) -> AlertConflict | None:
    """The stored alert that has a key of the definition already; None if there is none.

    moved: the ids of alerts that give up their natural keys in the same change.
    """
    has_key: dict[UniqueBy, ColumnElement[bool]] = {
        UniqueBy.UNIQUENESS_KEY: and_(
            alert.c.uniqueness_key_held, alert.c.uniqueness_key == definition.uniqueness_key
        ),
        UniqueBy.NATURAL_KEY: and_(alert.c.natural_key == definition.natural_key, alert.c.alert_id.not_in(moved)),
    }
    for key, _ in keys_of(definition):
        other = await connection.scalar(
            select(alert.c.alert_id).where(
                alert.c.organization_id == organization_id, alert.c.alert_id != definition.alert_id, has_key[key]
            )
        )
        if other is not None:
            return AlertConflict(key, other, definition.uniqueness_key)
    return None
