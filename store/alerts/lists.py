"""Lists of alert definitions: pages by age, with filters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.definitions import AlertDefinition, DefinitionState
from store.alerts.rows import definition_of
from store.postgres import bounded_pages
from store.postgres.bounded_pages import BoundedPage, ListScan
from store.postgres.database import driver
from store.tables.alerts import OWN_LABELS, alert

# With more alerts than this, labels are compared alert by alert, in the order of the list.
MAX_LABELLED = 500

COLUMNS = tuple(column.name for column in alert.c)
ORDER = ("create_time", "alert_id")


@dataclass(frozen=True)
class AlertFilter:
    """Which alerts to list: those that match every field that is set. An empty collection or text is not set.

    start_time, end_time: alerts created at the first or later, and before the second.
    """

    customer_id: str | None = None
    plan_id: str | None = None
    subscription_id: str | None = None
    uniqueness_key: str | None = None
    condition_types: tuple[str, ...] = ()
    states: tuple[DefinitionState, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    display_name_prefix: str = ""
    start_time: datetime | None = None
    end_time: datetime | None = None


Position = tuple[datetime, str]  # create_time and id of an alert


async def page(
    connection: AsyncConnection,
    organization_id: int,
    filters: AlertFilter,
    *,
    after: Position | None,
    limit: int,
    newest_first: bool = False,
    most_examined: int | None = None,
) -> BoundedPage[AlertDefinition, Position]:
    """Up to `limit` alerts after a position, oldest first by default.

    most_examined: alerts that are read at most; by default MAX_EXAMINED of `bounded_pages`. When there are
    more, a page may have fewer than `limit`.
    """
    scan = await _scan(connection, organization_id, filters, newest_first=newest_first)
    return await bounded_pages.read(
        connection, organization_id, scan, definition_of, after=after, limit=limit, most_examined=most_examined
    )


async def count(connection: AsyncConnection, organization_id: int, filters: AlertFilter) -> int:
    """How many alerts match; MAX_TOTAL_SIZE for that many or more."""
    return await bounded_pages.count(connection, await _scan(connection, organization_id, filters))


async def _scan(
    connection: AsyncConnection, organization_id: int, filters: AlertFilter, *, newest_first: bool = False
) -> ListScan:
    parameters: dict[str, Any] = {"organization_id": organization_id}
    columns = (
        ("uniqueness_key", filters.uniqueness_key),
        ("subscription_id", filters.subscription_id),
        ("customer_id", filters.customer_id),
        ("plan_id", filters.plan_id),
    )
    named = {column: value for column, value in columns if value is not None}
    parameters |= named
    ranges = _ranges(list(named), filters.states)
    if not named and filters.labels and (labelled := await _labelled(connection, organization_id, filters.labels)):
        ranges = [labelled[0]]
        parameters["labelled"] = labelled[1]
    common = ["organization_id = %(organization_id)s"]
    for name, value, sign in (("start_time", filters.start_time, ">="), ("end_time", filters.end_time, "<")):
        if value is not None:
            common.append(f"create_time {sign} %({name})s")
            parameters[name] = value
    checked = [f"{column} = %({column})s" for column in named]
    for condition, name, wanted in (
        ("state = ANY(%(states)s)", "states", list(filters.states)),
        ("condition_type = ANY(%(condition_types)s)", "condition_types", list(filters.condition_types)),
        ("labels @> %(labels)s::jsonb", "labels", _json(filters.labels)),
        ("starts_with(name, %(display_name_prefix)s)", "display_name_prefix", filters.display_name_prefix),
    ):
        if getattr(filters, name):
            checked.append(condition)
            parameters[name] = wanted
    return ListScan(
        table="alert",
        columns=COLUMNS,
        order=ORDER,
        ranges=[" AND ".join([*common, one]) for one in ranges],
        filters=checked,
        parameters=parameters,
        newest_first=newest_first,
    )


def _ranges(named: list[str], states: tuple[DefinitionState, ...]) -> list[str]:
    """The narrowest ranges that an index has in the order of age, as conditions."""
    if not named:
        return [f"state = '{state}'" for state in sorted(set(states or DefinitionState))]
    column = named[0]
    if column == "uniqueness_key":
        # Alerts that have the key, and alerts that had it: each in an index of its own.
        return [f"uniqueness_key = %(uniqueness_key)s AND {held}uniqueness_key_held" for held in ("", "NOT ")]
    return [f"{column} = %({column})s"]


# Without a condition on the organization's column: with it, an index by age could be read instead, as a whole.
_LABELLED = f"""
SELECT alert_id FROM alert
WHERE labels <> '{{}}'::jsonb AND {OWN_LABELS} @> %(labels)s::jsonb
LIMIT %(limit)s
"""


async def _labelled(
    connection: AsyncConnection, organization_id: int, labels: Mapping[str, str]
) -> tuple[str, list[str]] | None:
    """The alerts with those labels, as a condition and its parameter; None if there are more than MAX_LABELLED."""
    own = {str(organization_id): dict(labels)}
    cursor = await (await driver(connection)).execute(
        _LABELLED.encode(), {"labels": _json(own), "limit": MAX_LABELLED + 1}
    )
    alert_ids = [row[0] for row in await cursor.fetchall()]
    return None if len(alert_ids) > MAX_LABELLED else ("alert_id = ANY(%(labelled)s)", alert_ids)


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value).decode()
