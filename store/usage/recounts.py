"""Recounts: the values of gauges, computed anew from the stored events.

Gauges that differ only in their groups are counted in one pass over the events.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from evaluator.aggregation import Aggregation, Tally
from evaluator.amounts import exact_arithmetic
from evaluator.gauges import Gauge
from evaluator.prices import PriceFilter
from evaluator.raw_events import RawEvents
from store.postgres.database import DriverConnection
from store.postgres.distributed import Forms, on_cluster
from store.tables import event_key
from store.usage import contract_conditions, metric_conditions, price_conditions


class StatementKind(NamedTuple):
    """What the text of a statement depends on. One statement counts all gauges of one kind."""

    aggregation: Aggregation
    of_cost: bool
    unique_property: str | None
    of_subscription: bool
    keys: tuple[str, ...]
    prices: tuple[PriceFilter, ...]
    contract_fields: tuple[tuple[str, str], ...]
    raw_events: RawEvents | None


@dataclass(frozen=True)
class Recount:
    """A gauge to be counted anew.

    leaving_out: the ids of stored events that the caller counts itself. raw_events: those that count in its metric.
    held_left_out: where open reservations count, too, the ids of those that the caller counts itself.
    """

    gauge: Gauge
    aggregation: Aggregation
    unique_property: str | None
    leaving_out: Sequence[str]
    raw_events: RawEvents | None = None
    held_left_out: Collection[str] = ()

    @property
    def kind(self) -> StatementKind:
        """The kind of the statement that counts the gauge."""
        gauge = self.gauge
        return StatementKind(
            aggregation=self.aggregation,
            of_cost=gauge.measure.of_cost,
            unique_property=self.unique_property if self.aggregation is Aggregation.UNIQUE_COUNT else None,
            of_subscription=gauge.subscription_id is not None,
            keys=tuple(key for key, _ in gauge.group),
            prices=gauge.measure.prices,
            contract_fields=gauge.measure.contract_fields,
            raw_events=self.raw_events,
        )


@dataclass(eq=False)
class _Pass:
    """One pass over the events of a customer or subscription.

    gauge: one of the gauges that it counts. indexes: of all its gauges, by the values of their groups. left_out: the
    ids of events that it does not count.
    """

    gauge: Gauge
    indexes: dict[tuple[str, ...], int] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)


# Of events of the same time, the one with the greatest id is the latest: their order of arrival is not stored.
_LATEST_FIRST = 'e.event_time DESC, e.event_id COLLATE "C" DESC'
_AGGREGATES: Mapping[Aggregation, str] = {
    Aggregation.SUM: "coalesce(sum({amount}), 0)",
    Aggregation.COUNT: "count(*) FILTER (WHERE {amount} >= 0) - count(*) FILTER (WHERE {amount} < 0)",
    Aggregation.MAX: "coalesce(max({amount}), 0)",
    Aggregation.LATEST: "coalesce((array_agg({amount} ORDER BY " + _LATEST_FIRST + "))[1], 0)",
    Aggregation.UNIQUE_COUNT: "count(DISTINCT e.properties ->> %(property)s::text)",
}

EVENTS = "event"
# Open reservations as events with the amounts that were granted. Its own conditions find those of a customer.
HELD = """(
    SELECT organization_id, customer_id, reservation_id AS event_id, event_time, metric_id, NULL::text AS event_name,
        granted_quantity AS quantity, granted_cost AS cost, currency, subscription_id,
        coalesce(properties, '{}'::jsonb) AS properties
    FROM reservation WHERE state = 'OPEN'
)"""

# The tallies of the groups of each pass: value, number of events, time and id of the latest event, group values.
_RECOUNT = """
SELECT i.position, r.* FROM {passes}, LATERAL (
    SELECT {tally}{group_values}
    FROM {source} e WHERE {conditions}
    {group_by}
) AS r
"""
_FIRST_GROUP_COLUMN = 5  # of the inner SELECT

# The same on a cluster, where no subquery can depend on a row of the input. A pass without events has no row.
_RECOUNT_JOINED = """
SELECT i.position, {tally}{group_values}
FROM {passes} JOIN {source} e ON {conditions}
WHERE e.customer_id = ANY(%(all_customer_ids)s::text[])
GROUP BY e.customer_id, i.position{further}
"""

# Stores the values that UNIQUE_COUNT gauges have counted.
_RECOUNT_VALUES = """
INSERT INTO unique_value (organization_id, customer_id, gauge_id, value)
SELECT DISTINCT %(organization_id)s::bigint, i.customer_id, w.gauge_id, e.properties ->> %(property)s::text
FROM {passes}
JOIN event e ON {conditions}
JOIN unnest(%(positions)s::bigint[], %(gauge_ids)s::uuid[]{value_arrays}) AS w (position, gauge_id{value_columns})
    ON w.position = i.position{same_values}{shards}
ON CONFLICT DO NOTHING
"""

# Deletes the values of gauges.
_FORGET_VALUES = Forms.naming_shards(
    """
DELETE FROM unique_value v
USING unnest(%(customer_ids)s::text[], %(gauge_ids)s::uuid[]) AS i (customer_id, gauge_id)
WHERE v.organization_id = %(organization_id)s
    AND v.customer_id = i.customer_id COLLATE "C" AND v.gauge_id = i.gauge_id {shards}
""",
    "v.customer_id = ANY(%(customer_ids)s)",
)

# The passes as rows `i`, with the values of group keys that each of them counts. Each column comes as one text with
# tabs between the values, which contain none: the driver converts arrays value by value.
_PASSES = """unnest(
    string_to_array(%(customer_ids)s, E'\t'), string_to_array(%(subscription_ids)s, E'\t', ''),
    string_to_array(%(names)s, E'\t', ''), string_to_array(%(starts)s, E'\t')::timestamptz[],
    string_to_array(%(ends)s, E'\t')::timestamptz[], string_to_array(%(left_out)s, E'\t')::jsonb[]{wanted_arrays}
) WITH ORDINALITY AS i (
    customer_id, subscription_id, name, period_start, period_end, left_out{wanted_columns}, position
)"""


async def recount(
    connection: DriverConnection, organization_id: int, recounts: Sequence[Recount]
) -> list[tuple[Tally, int]]:
    """The tally of each gauge over the stored events of its period, and the number of these events.

    With open reservations, where the gauge counts what is held. The transaction must hold the locks of the gauges.
    Otherwise another transaction could add events that this one counts too, or could have stored events that this one
    does not see.
    """
    results = await _tallies(connection, organization_id, recounts, EVENTS)
    counting_held = [
        index for index, one in enumerate(recounts) if one.gauge.measure.counts_held and one.aggregation.additive
    ]
    if counting_held:
        held = await held_amounts(connection, organization_id, [recounts[index] for index in counting_held])
        for index, (amount, number) in zip(counting_held, held, strict=True):
            tally, events = results[index]
            with exact_arithmetic():
                tally.value += amount
            results[index] = tally, events + number
    return results


async def held_amounts(
    connection: DriverConnection, organization_id: int, recounts: Sequence[Recount]
) -> list[tuple[Decimal, int]]:
    """What open reservations hold of each gauge, which must be additive, and the number of these reservations."""
    wanted = [replace(one, leaving_out=list(one.held_left_out)) for one in recounts]
    return [(tally.value, number) for tally, number in await _tallies(connection, organization_id, wanted, HELD)]


async def _tallies(
    connection: DriverConnection, organization_id: int, recounts: Sequence[Recount], source: str
) -> list[tuple[Tally, int]]:
    """The tally of each gauge over the rows of EVENTS or HELD, and the number of these rows."""
    results: list[tuple[Tally, int]] = [(Tally(), 0) for _ in recounts]  # one tally each: callers add to them
    for kind, passes in _passes(recounts).items():
        statement = _recount_statement(kind, source, joined=on_cluster(connection))
        parameters = _parameters(organization_id, kind, passes)
        cursor = await connection.execute(statement.encode(), parameters)
        for position, total, events, latest, latest_id, *values in await cursor.fetchall():
            index = passes[position - 1].indexes.get(tuple(values))
            if index is not None:  # a pass can count each value of a group, but not all combinations of them
                results[index] = Tally(Decimal(total), latest, latest_id), events
    return results


async def recount_values(connection: DriverConnection, organization_id: int, recounts: Sequence[Recount]) -> None:
    """Stores the values of UNIQUE_COUNT gauges anew. Counts the same events as `recount`.

    What was stored before is deleted: a value whose events were all voided must count again when it comes again.
    """
    forgotten = {
        "organization_id": organization_id,
        "customer_ids": [item.gauge.customer_id for item in recounts],
        "gauge_ids": [item.gauge.gauge_id for item in recounts],
    }
    await connection.execute(_FORGET_VALUES.on(connection), forgotten)
    for kind, passes in _passes(recounts).items():
        numbers = range(len(kind.keys))
        statement = _RECOUNT_VALUES.format(
            passes=_passes_as_rows(len(kind.keys)),
            conditions=_conditions_of_pass(kind),
            value_arrays="".join(f", %(values{number})s::text[]" for number in numbers),
            value_columns="".join(f", value{number}" for number in numbers),
            same_values="".join(f" AND w.value{number} = {group_value(number)}" for number in numbers),
            shards=" AND e.customer_id = ANY(%(all_customer_ids)s::text[])" if on_cluster(connection) else "",
        )
        wanted = [
            (position, recounts[index].gauge.gauge_id, values)
            for position, one in enumerate(passes, start=1)
            for values, index in one.indexes.items()
        ]
        parameters = _parameters(organization_id, kind, passes)
        parameters["positions"] = [position for position, _, _ in wanted]
        parameters["gauge_ids"] = [gauge_id for _, gauge_id, _ in wanted]
        parameters.update({f"values{number}": [values[number] for _, _, values in wanted] for number in numbers})
        await connection.execute(statement.encode(), parameters)


def _passes(recounts: Sequence[Recount]) -> dict[StatementKind, list[_Pass]]:
    """The passes that count all of the gauges, by kind."""
    found: dict[StatementKind, dict[tuple[Any, ...], _Pass]] = {}
    for index, item in enumerate(recounts):
        gauge = item.gauge
        of_kind = found.setdefault(item.kind, {})
        where = gauge.customer_id, gauge.subscription_id, gauge.measure, gauge.period.start, gauge.period.end
        one = of_kind.setdefault(where, _Pass(gauge))
        one.indexes[tuple(value for _, value in gauge.group)] = index
        one.left_out.update(item.leaving_out)
    return {kind: list(of_kind.values()) for kind, of_kind in found.items()}


def _recount_statement(kind: StatementKind, source: str, *, joined: bool) -> str:
    numbers = range(len(kind.keys))
    if joined:
        return _RECOUNT_JOINED.format(
            source=source,
            passes=_passes_as_rows(len(kind.keys)),
            tally=tally_columns(kind),
            group_values="".join(f", {group_value(number)}" for number in numbers),
            conditions=_conditions_of_pass(kind),
            further=further_columns(kind.keys),
        )
    columns = ", ".join(str(_FIRST_GROUP_COLUMN + number) for number in numbers)
    return _RECOUNT.format(
        source=source,
        passes=_passes_as_rows(len(kind.keys)),
        tally=tally_columns(kind),
        group_values="".join(f", {group_value(number)}" for number in numbers),
        conditions=_conditions_of_pass(kind),
        group_by=f"GROUP BY {columns}" if columns else "",
    )


def further_columns(keys: Sequence[str]) -> str:
    """The columns of group values, which follow those of a row `i.position` and its tally, for GROUP BY."""
    return "".join(f", {_FIRST_GROUP_COLUMN + 1 + number}" for number in range(len(keys)))


def tally_columns(kind: StatementKind) -> str:
    """Aggregates of events `e`: the value, the number of events, time and id of the latest event."""
    amount = "e.cost" if kind.of_cost else metric_conditions.amount(kind.raw_events)
    value = _AGGREGATES[kind.aggregation].format(amount=amount)
    latest_id = "NULL"
    if kind.aggregation is Aggregation.LATEST:
        latest_id = f"(array_agg(e.event_id ORDER BY {_LATEST_FIRST}))[1]"
    return f"{value}, count(*), max(e.event_time), {latest_id}::text"


def _passes_as_rows(keys: int) -> str:
    """`_PASSES` for that number of group keys."""
    return _PASSES.format(
        wanted_arrays="".join(f", string_to_array(%(wanted{number})s, E'\t')::jsonb[]" for number in range(keys)),
        wanted_columns="".join(f", wanted{number}" for number in range(keys)),
    )


def _parameters(organization_id: int, kind: StatementKind, passes: Sequence[_Pass]) -> dict[str, Any]:
    gauges = [one.gauge for one in passes]
    return {
        "organization_id": organization_id,
        "customer_ids": "\t".join([gauge.customer_id for gauge in gauges]),
        "all_customer_ids": sorted({gauge.customer_id for gauge in gauges}),
        "subscription_ids": "\t".join([gauge.subscription_id or "" for gauge in gauges]),
        "names": "\t".join([gauge.measure.currency or gauge.measure.metric_id or "" for gauge in gauges]),
        "starts": "\t".join([gauge.period.start.isoformat() for gauge in gauges]),
        "ends": "\t".join([gauge.period.end.isoformat() for gauge in gauges]),
        "left_out": _json_objects(one.left_out for one in passes),
        **parameters_of(kind),
        **{
            f"wanted{number}": _json_objects({values[number] for values in one.indexes} for one in passes)
            for number in range(len(kind.keys))
        },
    }


def _json_objects(names: Iterable[Set[str]]) -> str:
    """For each row a JSON object with these names: PostgreSQL searches an array element by element."""
    return "\t".join([orjson.dumps(dict.fromkeys(of_row)).decode() for of_row in names])


def group_value(number: int) -> str:
    """The value that an event `e` has for a group key."""
    return f"e.properties ->> %(key{number})s::text"


def _conditions_of_pass(kind: StatementKind) -> str:
    """The condition for the events `e` that the pass `i` counts."""
    wanted = [f"i.wanted{number} ? ({group_value(number)})" for number in range(len(kind.keys))]
    return " AND ".join([conditions(kind), "NOT i.left_out ? e.event_id", *wanted])


def conditions(kind: StatementKind) -> str:
    """The condition for the events `e` of a row `i` that gauges of that kind count, whatever their groups."""
    found = [
        event_key.of_customer("%(organization_id)s", "i.customer_id"),
        "e.event_time >= i.period_start",
        "e.event_time < i.period_end",
        unit_condition(kind),
    ]
    if kind.prices:
        found.append(price_conditions.condition(kind.prices))
    if kind.contract_fields:
        found.append(contract_conditions.condition(kind.contract_fields))
    if kind.of_subscription:
        found.append('e.subscription_id = i.subscription_id COLLATE "C"')
    if kind.aggregation is Aggregation.UNIQUE_COUNT:
        found.append("e.properties ? %(property)s::text")
    return " AND ".join(found)


def unit_condition(kind: StatementKind) -> str:
    """The part of `conditions` which says that an event `e` has the metric or the currency of the row `i`."""
    if kind.of_cost:
        return 'e.currency = i.name COLLATE "C" AND e.cost IS NOT NULL'
    return metric_conditions.condition('i.name COLLATE "C"', kind.raw_events)


def parameters_of(kind: StatementKind) -> dict[str, Any]:
    """The parameters of `conditions`, `tally_columns` and `group_value`, apart from the columns of `i`."""
    return {
        "property": kind.unique_property or "",
        **{f"key{number}": key for number, key in enumerate(kind.keys)},
        **price_conditions.parameters(kind.prices),
        **contract_conditions.parameters(kind.contract_fields),
        **metric_conditions.parameters(kind.raw_events),
    }
