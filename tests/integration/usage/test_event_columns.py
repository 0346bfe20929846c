"""Events with any text that ids and properties may have: COPY, INSERT and every comparison see the same values.

The columns of several events are one text each, see `store.usage.events`.
"""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from evaluator.aggregation import Aggregation
from evaluator.events import UsageEvent
from evaluator.gauges import EVER, Gauge, Measure
from evaluator.periods import Period
from runtime.clock import ManualClock
from store.alerts import exclusions
from store.alerts.exclusions import Groups, NewGroups
from store.identity import organizations
from store.postgres.database import Database, DriverConnection, driver
from store.usage import events, recounts
from store.usage.events import EventsVoided
from store.usage.recounts import Recount
from tests.support.databases import NOON

IDS = (
    "NULL",
    "null",
    "plain",
    "two words",
    "\\",
    "\\N",
    "\\.",
    "\\t",
    'a"b',
    "a'b",
    "{}",
    '{"a",b}',
    "a,b;c",
    "%s %(organization_id)s",
    "$1",
    "größer",
    "日本語",
    "\U0001f600",
    "a\u2028b",
    "a\u00a0b",
    "e\u0301",
    "x" * 128,
)
AMOUNTS = (
    Decimal("0"),
    Decimal("-0"),
    Decimal("1E+3"),
    Decimal("99999999999999999999.999999999999999999"),
    Decimal("-99999999999999999999999999999999999999"),
    Decimal("0.000000000000000001"),
    Decimal("-1E-18"),
)
TEXTS = ("", " ", "\t", "a\tb\n\r\x0b\x1f\x7f", '"],[', "\\u0000", "\\", "null", "ü\u2028\U0001f600", "x" * 256)


def odd() -> list[UsageEvent]:
    """Events with every id, amount and text, each with and without the optional fields."""
    found = list[UsageEvent]()
    amounts, texts = itertools.cycle(AMOUNTS), itertools.cycle(TEXTS)
    for number, (one, bare) in enumerate(itertools.product(IDS, (False, True))):
        found.append(
            UsageEvent(
                event_id=f"{one}{number}" if number % 4 else one,
                customer_id=IDS[number % len(IDS)],
                event_time=NOON + timedelta(microseconds=number, days=-30 * (number % 2)),
                metric_id="" if number % 8 == 7 else one,
                quantity=next(amounts),
                subscription_id=None if bare else one,
                cost=None if bare else next(amounts),
                currency=None if bare else "USD",
                properties={} if bare else {one: next(texts), "text": next(texts)},
                event_name=one if number % 8 == 7 else None,
            )
        )
    return found


async def stored(connection: DriverConnection, organization_id: int) -> list[UsageEvent]:
    """The stored events, by customer and id."""
    cursor = await connection.execute(
        "SELECT event_id, customer_id, event_time, metric_id, quantity, subscription_id, cost, currency, properties,"
        " event_name FROM event WHERE organization_id = %s ORDER BY customer_id, event_id",
        (organization_id,),
    )
    found = [UsageEvent(*row) for row in await cursor.fetchall()]
    return [one._replace(metric_id=one.metric_id or "", properties=one.properties or {}) for one in found]


async def two_organizations(database: Database) -> tuple[int, int]:
    """Their numbers."""
    async with database.transaction() as connection:
        one = await organizations.get_or_create(connection, "one", NOON)
        return one, await organizations.get_or_create(connection, "other", NOON)


async def test_insert_stores_what_copy_stores_and_finds_it_again(database: Database) -> None:
    copied, inserted = await two_organizations(database)
    sent = odd()
    in_order = sorted(sent, key=lambda one: (one.customer_id.encode(), one.event_id.encode()))
    async with database.transaction() as connection:
        raw = await driver(connection)
        await events.copy(raw, events.copy_text(copied, NOON, sent))
        assert await stored(raw, copied) == in_order
        assert await events.insert(raw, inserted, NOON, sent[:1]) == {sent[0].identity}
        assert await events.insert(raw, inserted, NOON, sent) == {one.identity for one in sent[1:]}
        assert await stored(raw, inserted) == in_order
        for organization_id in (copied, inserted):
            assert await events.insert(raw, organization_id, NOON, sent[::-1]) == set()
            for shown in (sent, sent[::-1]):
                assert await events.stored_alike(raw, organization_id, shown) == set(range(len(sent)))
                await events.check_stored(raw, organization_id, shown)
            for one in sent:  # each column has one value, which may be none
                assert await events.insert(raw, organization_id, NOON, [one]) == set()
                assert await events.stored_alike(raw, organization_id, [one]) == {0}
                await events.check_stored(raw, organization_id, [one])


def changed(event: UsageEvent) -> list[UsageEvent]:
    """The event with each other content that may look like it."""
    return [
        event._replace(event_time=event.event_time + timedelta(microseconds=1)),
        event._replace(quantity=event.quantity + 1),
        event._replace(subscription_id="other" if event.subscription_id is None else None),
        event._replace(
            cost=Decimal(1) if event.cost is None else None, currency="USD" if event.cost is None else None
        ),
        event._replace(properties={} if event.properties else {"": ""}),
        event._replace(properties={**event.properties, "more": ""}),
        event._replace(metric_id="", event_name=event.metric_id)
        if event.metric_id
        else event._replace(metric_id=event.event_name or "", event_name=None),
    ]


async def test_other_content_is_not_alike(database: Database) -> None:
    organization_id, other = await two_organizations(database)
    sent = odd()
    async with database.transaction() as connection:
        raw = await driver(connection)
        await events.insert(raw, organization_id, NOON, sent)
        for others in zip(*map(changed, sent), strict=True):
            assert await events.stored_alike(raw, organization_id, others) == set()
        mixed: Sequence[UsageEvent] = [changed(one)[1] if number % 3 else one for number, one in enumerate(sent)]
        assert await events.stored_alike(raw, organization_id, mixed) == set(range(0, len(sent), 3))
        assert await events.stored_alike(raw, other, sent) == set()


@pytest.mark.parametrize(
    "time", [EVER.start, EVER.end, datetime(2000, 2, 29, tzinfo=UTC), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)]
)
async def test_event_of_a_time_far_away_is_not_stored(database: Database, time: datetime) -> None:
    organization_id, _ = await two_organizations(database)
    [event, *_] = odd()
    far = event._replace(event_time=time)
    async with database.transaction() as connection:
        raw = await driver(connection)
        assert await events.stored_alike(raw, organization_id, [far, event, far]) == set()
        with pytest.raises(EventsVoided):
            await events.check_stored(raw, organization_id, [far])


async def test_recount_finds_every_id_and_group(database: Database) -> None:
    organization_id, _ = await two_organizations(database)
    sent = [
        UsageEvent(
            f"{number}{one}",
            one,
            NOON,
            one,
            Decimal(10**number),
            one if number % 2 else None,
            None,
            None,
            {one: text},
        )
        for one in IDS
        for number, text in enumerate(TEXTS)
    ]
    periods = [Period(NOON - timedelta(days=3), NOON + timedelta(days=3)), EVER]
    wanted = [
        Recount(
            Gauge(one, one if of_subscription else None, Measure(metric_id=one, per_subscription=of_subscription),
                  ((one, text),) if grouped else (), period),
            Aggregation.SUM,
            None,
            [f"{number}{one}"] if left_out else [],
        )
        for one in IDS
        for number, text in enumerate(TEXTS)
        for period in periods
        for of_subscription, grouped, left_out in itertools.product((False, True), repeat=3)
        if grouped or not number
    ]  # fmt: skip

    def expected(one: Recount) -> Decimal:
        gauge = one.gauge
        return sum(
            (
                event.quantity
                for event in sent
                if event.customer_id == gauge.customer_id
                and event.event_id not in one.leaving_out
                and gauge.subscription_id in (None, event.subscription_id)
                and all(event.properties.get(key) == value for key, value in gauge.group)
            ),
            Decimal(0),
        )

    async with database.transaction() as connection:
        raw = await driver(connection)
        await events.insert(raw, organization_id, NOON, sent)
        # Those that leave events out are passes of their own.
        for part in ([one for one in wanted if not one.leaving_out], [one for one in wanted if one.leaving_out]):
            counted = await recounts.recount(raw, organization_id, part)
            assert [tally.value for tally, _ in counted] == [expected(one) for one in part]
        for one in wanted[:40]:
            [(tally, _)] = await recounts.recount(raw, organization_id, [one])
            assert tally.value == expected(one)
        assert await recounts.recount(raw, organization_id, []) == []


async def test_groups_are_counted_with_any_id_and_without_a_subscription(
    database: Database, clock: ManualClock
) -> None:
    organization_id, other = await two_organizations(database)
    groups = [
        Groups(customer_id, alert_id, subscription_id, start)
        for customer_id, alert_id in itertools.pairwise(IDS)
        for subscription_id in (None, customer_id)
        for start in (clock.now(), EVER.start, EVER.end)
    ]
    async with database.transaction() as connection:
        raw = await driver(connection)
        for one in groups[:7]:  # each column has one value, which may be empty
            assert await exclusions.count(raw, organization_id, [NewGroups(one, 1, 1)]) == {one: 1}
        numbers = {one: number for number, one in enumerate(groups, start=2)}
        counted = await exclusions.count(raw, organization_id, [NewGroups(one, 1, numbers[one]) for one in groups])
        assert counted == {one: numbers[one] + (one in groups[:7]) for one in groups}
        without = [one for one in groups if one.subscription_id is None]
        assert await exclusions.count(raw, other, [NewGroups(one, 1, 1) for one in without]) == dict.fromkeys(
            without, 1
        )
        # A younger watch counts from 0.
        again = await exclusions.count(raw, organization_id, [NewGroups(one, 2, 1) for one in without])
        assert again == dict.fromkeys(without, 1)
