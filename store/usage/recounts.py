"""Recounts: gauges counted anew from the stored events, in one pass over the events for all that differ by group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from psycopg.types.json import Jsonb

from evaluator.aggregation import Aggregation, Tally
from evaluator.gauges import Gauge
from store.postgres.database import DriverConnection
from store.usage import price_conditions


@dataclass(frozen=True)
class Recount:
    """A gauge to be counted anew from the stored events, but for those (`leaving_out`) that are yet to be counted."""

    gauge: Gauge
    aggregation: Aggregation
    unique_property: str | None
    leaving_out: Sequence[str]

    @property
    def kind(self) -> tuple[Any, ...]:
        """What decides the text of the statement; items of one kind are counted by one."""
        gauge = self.gauge
        keys = tuple(key for key, _ in gauge.group)
        unique_property = self.unique_property if self.aggregation is Aggregation.UNIQUE_COUNT else None
        of_subscription = gauge.subscription_id is not None
        return self.aggregation, gauge.measure.of_cost, unique_property, of_subscription, keys, gauge.measure.prices


@dataclass(eq=False)
class _Pass:
    """One pass over the events of a customer or subscription. indexes: of the items it counts, by group values."""

    gauge: Gauge
    indexes: dict[tuple[str, ...], int] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)


# Of events of one time the one with the greatest id: the order in which they came is not stored.
_LATEST_FIRST = 'e.event_time DESC, e.event_id COLLATE "C" DESC'
_AGGREGATES: Mapping[Aggregation, str] = {
    Aggregation.SUM: "coalesce(sum({amount}), 0)",
    Aggregation.COUNT: "count(*) FILTER (WHERE e.quantity >= 0) - count(*) FILTER (WHERE e.quantity < 0)",
    Aggregation.MAX: "coalesce(max({amount}), 0)",
    Aggregation.LATEST: "coalesce((array_agg({amount} ORDER BY " + _LATEST_FIRST + "))[1], 0)",
    Aggregation.UNIQUE_COUNT: "count(DISTINCT e.properties ->> %(property)s::text)",
}


async def recount(
    connection: DriverConnection, organization_id: int, recounts: Sequence[Recount]
) -> list[tuple[Tally, int]]:
    """The tally of each gauge over the events stored in its period, and how many those are.

    The gauges' rows have to be locked: then no other transaction can be about to add an event that this one
    already sees, or miss one that it does not.
    """
    results: list[tuple[Tally, int]] = [(Tally(), 0) for _ in recounts]  # a tally each: they are added to
    for kind, passes in _passes(recounts).items():
        aggregation, of_cost, _, _, keys, _ = kind
        value = _AGGREGATES[aggregation].format(amount="e.cost" if of_cost else "e.quantity")
        groups = "".join(f", {_group(number)}" for number in range(len(keys)))
        latest_id = (
            f"(array_agg(e.event_id ORDER BY {_LATEST_FIRST}))[1]" if aggregation is Aggregation.LATEST else "NULL"
        )
        grouping = "GROUP BY " + ", ".join(str(5 + number) for number in range(len(keys))) if keys else ""
        query = f"""
SELECT i.position, r.* FROM {_input(len(keys))}, LATERAL (
    SELECT {value}, count(*), max(e.event_time), {latest_id}::text{groups}
    FROM event e WHERE {_conditions(kind)}
    {grouping}
) AS r
"""
        cursor = await connection.execute(query.encode(), _parameters(organization_id, kind, passes))
        for position, total, events, latest, latest_id, *values in await cursor.fetchall():
            index = passes[position - 1].indexes.get(tuple(values))
            if index is not None:  # its values are wanted, but not in one group
                results[index] = Tally(Decimal(total), latest, latest_id), events
    return results


async def recount_values(connection: DriverConnection, organization_id: int, recounts: Sequence[Recount]) -> None:
    """Remembers the values that the stored events brought to UNIQUE_COUNT gauges, as `recount` counts them."""
    for kind, passes in _passes(recounts).items():
        keys = kind[4]
        columns = "".join(f", value{number}" for number in range(len(keys)))
        arrays = "".join(f", %(values{number})s::text[]" for number in range(len(keys)))
        same = "".join(f" AND w.value{number} = {_group(number)}" for number in range(len(keys)))
        query = f"""
INSERT INTO unique_value (organization_id, customer_id, gauge_id, value)
SELECT DISTINCT %(organization_id)s::bigint, i.customer_id, w.gauge_id, e.properties ->> %(property)s::text
FROM {_input(len(keys))}
JOIN event e ON {_conditions(kind)}
JOIN unnest(%(positions)s::bigint[], %(gauge_ids)s::uuid[]{arrays}) AS w (position, gauge_id{columns})
    ON w.position = i.position{same}
ON CONFLICT DO NOTHING
"""
        wanted = [
            (position, recounts[index].gauge.gauge_id, values)
            for position, one in enumerate(passes, start=1)
            for values, index in one.indexes.items()
        ]
        parameters = _parameters(organization_id, kind, passes)
        parameters["positions"] = [position for position, _, _ in wanted]
        parameters["gauge_ids"] = [gauge_id for _, gauge_id, _ in wanted]
        parameters.update(
            {f"values{number}": [values[number] for _, _, values in wanted] for number in range(len(keys))}
        )
        await connection.execute(query.encode(), parameters)


def _passes(recounts: Sequence[Recount]) -> dict[tuple[Any, ...], list[_Pass]]:
    """The passes that count all of the items, by kind."""
    found: dict[tuple[Any, ...], dict[tuple[Any, ...], _Pass]] = {}
    for index, item in enumerate(recounts):
        gauge = item.gauge
        of_kind = found.setdefault(item.kind, {})
        where = gauge.customer_id, gauge.subscription_id, gauge.measure, gauge.period.start, gauge.period.end
        one = of_kind.setdefault(where, _Pass(gauge))
        one.indexes[tuple(value for _, value in gauge.group)] = index
        one.left_out.update(item.leaving_out)
    return {kind: list(of_kind.values()) for kind, of_kind in found.items()}


def _input(keys: int) -> str:
    """The passes as rows, with the values of `keys` group keys that each of them wants."""
    arrays = "".join(f", %(wanted{number})s::jsonb[]" for number in range(keys))
    columns = "".join(f", wanted{number}" for number in range(keys))
    return f"""unnest(
    %(customer_ids)s::text[], %(subscription_ids)s::text[], %(names)s::text[], %(starts)s::timestamptz[],
    %(ends)s::timestamptz[], %(left_out)s::jsonb[]{arrays}
) WITH ORDINALITY AS i (
    customer_id, subscription_id, name, period_start, period_end, left_out{columns}, position
)"""


def _parameters(organization_id: int, kind: tuple[Any, ...], passes: Sequence[_Pass]) -> dict[str, Any]:
    unique_property, keys, prices = kind[2], kind[4], kind[5]
    gauges = [one.gauge for one in passes]
    return {
        "organization_id": organization_id,
        "property": unique_property or "",
        "customer_ids": [gauge.customer_id for gauge in gauges],
        "subscription_ids": [gauge.subscription_id for gauge in gauges],
        "names": [gauge.measure.currency or gauge.measure.metric_id for gauge in gauges],
        "starts": [gauge.period.start for gauge in gauges],
        "ends": [gauge.period.end for gauge in gauges],
        # Objects, whose keys PostgreSQL finds by bisection; in an array it would compare one after the other.
        "left_out": [Jsonb(dict.fromkeys(one.left_out)) for one in passes],
        **{f"key{number}": key for number, key in enumerate(keys)},
        **price_conditions.parameters(prices),
        **{
            f"wanted{number}": [Jsonb(dict.fromkeys(values[number] for values in one.indexes)) for one in passes]
            for number in range(len(keys))
        },
    }


def _group(number: int) -> str:
    """An event's value of a group key."""
    return f"e.properties ->> %(key{number})s::text"


def _conditions(kind: tuple[Any, ...]) -> str:
    """Which events `e` the pass `i` counts."""
    aggregation, of_cost, _, of_subscription, keys, prices = kind
    conditions = [
        "e.organization_id = %(organization_id)s",
        'e.customer_id = i.customer_id COLLATE "C"',
        "e.event_time >= i.period_start",
        "e.event_time < i.period_end",
        'e.currency = i.name COLLATE "C" AND e.cost IS NOT NULL' if of_cost else 'e.metric_id = i.name COLLATE "C"',
        "NOT i.left_out ? e.event_id",
        *(f"i.wanted{number} ? ({_group(number)})" for number in range(len(keys))),
    ]
    if prices:
        conditions.append(price_conditions.condition(prices))
    if of_subscription:
        conditions.append('e.subscription_id = i.subscription_id COLLATE "C"')
    if aggregation is Aggregation.UNIQUE_COUNT:
        conditions.append("e.properties ? %(property)s::text")
    return " AND ".join(conditions)
