"""Metrics: what is counted, of which events and with which aggregation, which cannot change."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, and_, case, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.aggregation import Aggregation
from evaluator.raw_events import EventFilter
from evaluator.selection_json import event_filters_from_json, event_filters_json
from store.accounts.puts import Put, is_newer
from store.postgres.counting import bounded_count
from store.tables.accounts import metric


class MetricFixed(Exception):
    """A put changes what counts in a metric, or how: what was counted before would mean something else.

    aggregation: whether it changes the aggregation, and not only which raw events count.
    """

    def __init__(self, stored: "StoredMetric", *, aggregation: bool) -> None:
        super().__init__(stored.metric_id)
        self.stored = stored
        self.aggregation = aggregation


@dataclass(frozen=True)
class MetricFact:
    """What the caller states about a metric.

    unique_property: UNIQUE_COUNT counts its distinct values. event_name, event_filters, quantity_property: which raw
    events count, and the property that has their amounts.
    """

    metric_id: str
    display_name: str
    aggregation: Aggregation
    unique_property: str | None
    as_of_time: datetime
    custom_fields: Mapping[str, str] = field(default_factory=dict)
    event_name: str | None = None
    event_filters: tuple[EventFilter, ...] = ()
    quantity_property: str | None = None


@dataclass(frozen=True)
class StoredMetric:
    """A metric as it is stored. as_of_time: unset after implicit registration, until a put states a fact."""

    organization_id: int
    metric_id: str
    display_name: str
    aggregation: Aggregation
    unique_property: str | None
    as_of_time: datetime | None
    create_time: datetime
    update_time: datetime
    custom_fields: Mapping[str, str] = field(default_factory=dict)
    event_name: str | None = None
    event_filters: tuple[EventFilter, ...] = ()
    quantity_property: str | None = None


async def put_existing(
    connection: AsyncConnection, organization_id: int, fact: MetricFact, now: datetime
) -> Put[StoredMetric] | None:
    """Puts a fact about a metric that exists, unless a newer one is stored; returns None if it does not exist.

    It changes nothing that routers read, so it needs no lock of the organization. Raises MetricFixed if the fact
    states another aggregation or another unique property, or other events.
    """
    stored = await get(connection, organization_id, fact.metric_id, locked=True)
    if stored is None:
        return None
    if is_newer(stored.as_of_time, fact.as_of_time):
        return Put(stored, superseded=True)
    if (stored.aggregation, stored.unique_property) != (fact.aggregation, fact.unique_property):
        raise MetricFixed(stored, aggregation=True)
    if _events(stored) != _events(fact):
        raise MetricFixed(stored, aggregation=False)
    changed = _free(fact)
    same = and_(*(metric.c[name] == value for name, value in changed.items()))
    rows = await connection.execute(
        update(metric)
        .where(*_is(organization_id, fact.metric_id))
        .values(
            **changed,
            as_of_time=fact.as_of_time,
            update_time=case((same, metric.c.update_time), else_=now),
        )
        .returning(metric)
    )
    return Put(_metric(rows.mappings().one()), previous=stored)


async def create(
    connection: AsyncConnection, organization_id: int, fact: MetricFact, epoch: int, now: datetime
) -> StoredMetric | None:
    """Creates the metric; returns None if it exists. The transaction holds the organization's lock exclusively."""
    statement = insert(metric).values(
        organization_id=organization_id,
        metric_id=fact.metric_id,
        **_free(fact),
        **_fixed(fact),
        as_of_time=fact.as_of_time,
        create_time=now,
        update_time=now,
        changed_epoch=epoch,
        create_epoch=epoch,
    )
    rows = await connection.execute(statement.on_conflict_do_nothing().returning(metric))
    row = rows.mappings().one_or_none()
    return None if row is None else _metric(row)


async def get(
    connection: AsyncConnection, organization_id: int, metric_id: str, *, locked: bool = False
) -> StoredMetric | None:
    """One metric, or None. locked: nothing changes it until the transaction ends."""
    statement = select(metric).where(*_is(organization_id, metric_id))
    rows = await connection.execute(statement.with_for_update() if locked else statement)
    row = rows.mappings().one_or_none()
    return None if row is None else _metric(row)


async def list_page(
    connection: AsyncConnection, organization_id: int, *, after: str | None, limit: int
) -> list[StoredMetric]:
    """Up to `limit` metrics after the id `after`, in the order of ids."""
    statement = select(metric).where(metric.c.organization_id == organization_id)
    if after is not None:
        statement = statement.where(metric.c.metric_id > after)
    rows = await connection.execute(statement.order_by(metric.c.metric_id).limit(limit))
    return [_metric(row) for row in rows.mappings()]


async def count(connection: AsyncConnection, organization_id: int) -> int:
    """How many metrics there are, see `bounded_count`."""
    return await bounded_count(connection, metric, metric.c.organization_id == organization_id)


def _is(organization_id: int, metric_id: str) -> tuple[ColumnElement[bool], ...]:
    return metric.c.organization_id == organization_id, metric.c.metric_id == metric_id


def _free(fact: MetricFact) -> dict[str, Any]:
    """The columns that a put may change."""
    return {"display_name": fact.display_name, "custom_fields": dict(fact.custom_fields)}


def _fixed(fact: MetricFact) -> dict[str, Any]:
    """The columns that decide what counts, and how."""
    return {
        "aggregation": fact.aggregation.value,
        "unique_property": fact.unique_property,
        "event_name": fact.event_name,
        "event_filters": event_filters_json(fact.event_filters),
        "quantity_property": fact.quantity_property,
    }


def _events(metric: StoredMetric | MetricFact) -> tuple[object, ...]:
    return metric.event_name, metric.event_filters, metric.quantity_property


def _metric(row: RowMapping) -> StoredMetric:
    return StoredMetric(
        organization_id=row["organization_id"],
        metric_id=row["metric_id"],
        display_name=row["display_name"],
        aggregation=Aggregation(row["aggregation"]),
        unique_property=row["unique_property"],
        as_of_time=row["as_of_time"],
        create_time=row["create_time"],
        update_time=row["update_time"],
        custom_fields=row["custom_fields"],
        event_name=row["event_name"],
        event_filters=event_filters_from_json(row["event_filters"]),
        quantity_property=row["quantity_property"],
    )
