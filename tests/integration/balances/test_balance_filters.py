"""Which balances an alert measures: custom fields, specifiers, types, seats, licences and units."""

from decimal import Decimal

import pytest

from generated.tidemark.v1 import (
    customer_alert_pb2,
)
from tests.support.balances.holder import COMMIT, CREDIT, GRANT, LICENSE, SEAT, Holder
from tests.support.balances.wording import create, notified_kinds, values, written
from tests.support.facts.refusals import assert_violations
from tests.support.server.sharing import shares_server
from tests.support.usage.caller import Caller, ShortTransition

BOTH_KINDS = "low_remaining_contract_credit_and_commit_balance_reached"


pytestmark = shares_server


@pytest.fixture
async def acme(caller: Caller) -> Holder:
    """A customer with two commits and a contract credit of two teams, under contracts of two regions."""
    holder = Holder(caller)
    await holder.put("c1", "10", custom_fields={"team": "a"}, contract_custom_fields={"region": "eu"})
    await holder.put("k1", "20", kind=CREDIT, custom_fields={"team": "a"}, contract_custom_fields={"region": "us"})
    await holder.put("c2", "40", custom_fields={"team": "b"}, contract_custom_fields={"region": "eu"})
    return holder


def filtered(entity: str, key: str, value: str | None = None) -> str:
    """A filter by a custom field."""
    valued = "" if value is None else f' value: "{value}"'
    return f'custom_field_filters {{ entity: CUSTOM_FIELD_ENTITY_{entity} key: "{key}"{valued} }}'


def excluding(*filters: str) -> str:
    """An exclusion of the balances that match all of the filters."""
    return f"exclude {{ {' '.join(filters)} }}"


def specified(*specifiers: str) -> str:
    """An alert on commits and contract credits with these specifiers."""
    return f"{BOTH_KINDS} {{ {' '.join(f'alert_specifiers {{ {one} }}' for one in specifiers)} }}"


FILTERED = (
    ("commit", filtered("COMMIT", "team", "a"), 10),
    ("commit", filtered("CONTRACT_CREDIT_OR_COMMIT", "team", "b"), 40),
    ("commit", filtered("CONTRACT", "region", "eu"), 50),
    ("commit", filtered("CONTRACT", "region", "eu") + filtered("COMMIT", "team", "a"), 10),
    ("commit", filtered("CONTRACT", "region", "us"), 0),
    ("commit", filtered("COMMIT", "region", "eu"), 0),
    ("contract_credit", filtered("CONTRACT_CREDIT", "team", "a"), 20),
    ("contract_credit", filtered("CONTRACT_CREDIT_OR_COMMIT", "team", "a"), 20),
    ("contract_credit", filtered("CONTRACT", "region", "us"), 20),
    ("contract_credit", filtered("CONTRACT", "region", "eu"), 0),
)


async def test_custom_field_filters_apply_to_their_entity_and_all_must_match(acme: Holder) -> None:
    for kind, filters, expected in FILTERED:
        low = await create(acme, f"low_remaining_{kind}_balance_reached {{ {filters} }}", "5")
        assert await values(acme, low) == {(): expected}, filters
        percent = await create(acme, f"low_remaining_{kind}_percentage_reached {{ {filters} }}", "5")
        assert await values(acme, percent) == ({(): 100} if expected else {}), filters


async def test_filter_by_an_entity_that_the_alert_does_not_measure_is_refused(caller: Caller) -> None:
    for kind, entity in (("commit", "CONTRACT_CREDIT"), ("contract_credit", "COMMIT"), ("seat", "COMMIT")):
        condition = f"low_remaining_{kind}_balance_reached"
        seats = 'seat_filter { seat_group_key: "user" }' if kind == "seat" else ""
        alert = written(f"{condition} {{ {seats} {filtered(entity, 'team', 'a')} }}", "5")
        await assert_violations(caller.create(alert), f"alert.{condition}.custom_field_filters[0].entity")


@pytest.mark.parametrize("alert_first", [True, False])
async def test_custom_field_filters_select_the_credits_of_seats(caller: Caller, alert_first: bool) -> None:
    acme = Holder(caller)
    conditions = [
        f'low_remaining_seat_balance_reached {{ seat_filter {{ seat_group_key: "user" }} {filters} }}'
        for filters in (
            filtered("CONTRACT_CREDIT", "team", "a"),
            filtered("CONTRACT", "region", "eu"),
            filtered("CONTRACT_CREDIT_OR_COMMIT", "team", "a") + filtered("CONTRACT", "region", "eu"),
        )
    ]

    async def put(balance_id: str, amount: str, user: str, team: str, region: str) -> None:
        fields, of_contract = {"team": team}, {"region": region}
        seat = ("user", user)
        await acme.put(
            balance_id, amount, kind=SEAT, seat=seat, custom_fields=fields, contract_custom_fields=of_contract
        )

    alerts = [await create(acme, one, "4") for one in conditions] if alert_first else []
    for item in (("s1", "10", "ann", "a", "eu"), ("s2", "20", "ann", "b", "eu"), ("s3", "40", "bob", "a", "us")):
        await put(*item)
    alerts = alerts or [await create(acme, one, "4") for one in conditions]
    assert [await values(acme, one) for one in alerts] == [
        {("ann",): 10, ("bob",): 40},
        {("ann",): 30},
        {("ann",): 10},
    ]
    await acme.spend("e1", "7", user="ann")
    assert await values(acme, alerts[2]) == {("ann",): 3}
    assert await notified_kinds(acme, alerts[2]) == ["REACHED"]
    # A put with other custom fields moves the credit into the selection, or out of it.
    await put("s2", "20", "ann", "a", "eu")
    assert await values(acme, alerts[2]) == {("ann",): 23}
    await put("s3", "40", "bob", "b", "us")
    assert await values(acme, alerts[0]) == {("ann",): 23, ("bob",): 0}
    assert await notified_kinds(acme, alerts[2]) == ["REACHED", "RESOLVED"]
    assert sorted(await notified_kinds(acme, alerts[0])) == ["REACHED", "REACHED", "RESOLVED"]


async def test_days_left_have_a_gauge_for_each_segment_that_passes_the_filters(caller: Caller, acme: Holder) -> None:
    now = caller.clock.now()
    for balance_id, team in (("d1", "a"), ("d2", "b")):
        ends = [now.replace(day=20), now.replace(day=25)]
        await acme.put(balance_id, spans=[("1", now, end) for end in ends], custom_fields={"team": team})
    only = filtered("COMMIT", "team", "a")
    low = await create(acme, f"low_remaining_days_for_commit_segment_reached {{ {only} }}", "7")
    assert await values(acme, low) == {("d1", "1"): 5, ("d1", "2"): 10}
    assert await acme.notified(1) == [[ShortTransition("REACHED", "7", "5", "5", "")]]


SPECIFIED: tuple[tuple[list[str], dict[tuple[str, ...], int], str], ...] = (
    ([], {(): 70}, "none: every balance"),
    ([filtered("COMMIT", "team", "a"), filtered("CONTRACT", "region", "us")], {(): 30}, "or"),
    (
        [filtered("COMMIT", "team", "a"), filtered("CONTRACT", "region", "eu")],
        {(): 50},
        "or: a balance that matches twice counts once",
    ),
    (
        [filtered("CONTRACT_CREDIT_OR_COMMIT", "team", "a") + filtered("CONTRACT", "region", "eu")],
        {(): 10},
        "and",
    ),
    ([excluding(filtered("COMMIT", "team", "b"))], {(): 30}, "exclude"),
    (
        [filtered("CONTRACT", "region", "eu") + excluding(filtered("COMMIT", "team", "a"))],
        {(): 40},
        "exclude wins",
    ),
    (
        [excluding(filtered("CONTRACT_CREDIT_OR_COMMIT", "team", "a"), filtered("CONTRACT", "region", "us"))],
        {(): 50},
        "one exclusion: and",
    ),
    (
        [excluding(filtered("COMMIT", "team", "a")) + excluding(filtered("CONTRACT", "region", "us"))],
        {(): 40},
        "exclusions: or",
    ),
    (
        [filtered("CONTRACT_CREDIT_OR_COMMIT", "team")],
        {("a",): 30, ("b",): 40},
        "a key without a value groups",
    ),
    (
        [filtered("CONTRACT_CREDIT_OR_COMMIT", "team") + filtered("CONTRACT", "region")],
        {("eu", "a"): 10, ("us", "a"): 20, ("eu", "b"): 40},
        "two such keys",
    ),
    (
        [filtered("CONTRACT_CREDIT", "team"), filtered("COMMIT", "team", "b")],
        {("a",): 20, (): 40},
        "a group beside a sum",
    ),
)


async def test_one_matching_specifier_is_enough_and_exclusions_take_precedence(acme: Holder) -> None:
    for specifiers, expected, what in SPECIFIED:
        low = await create(acme, specified(*specifiers), "5")
        assert await values(acme, low) == expected, what
        percent = await create(acme, specified(*specifiers).replace("balance", "percentage"), "5")
        assert await values(acme, percent) == dict.fromkeys(expected, Decimal(100)), what


async def test_usage_moves_the_gauge_of_the_group_that_is_drawn_on(acme: Holder) -> None:
    low = await create(acme, specified(filtered("CONTRACT_CREDIT_OR_COMMIT", "team")), "15", "35")
    assert await notified_kinds(acme, low) == ["REACHED"]  # a has 30
    assert await acme.spend("e1", "12") == []  # 10 of c1, which is first in the draw order, and 2 of c2
    assert await values(acme, low) == {("a",): 20, ("b",): 38}
    await acme.adjust("c1", "100")
    assert await values(acme, low) == {("a",): 120, ("b",): 38}
    assert sorted(await acme.spend("e2", "103")) == [
        ShortTransition("REACHED", "35", "120", "20", "e2"),
        ShortTransition("REACHED", "35", "38", "35", "e2"),
    ]
    new = await acme.put("c3", "3", custom_fields={"team": "c"})
    assert new.custom_fields == {"team": "c"}
    assert (await values(acme, low))["c",] == 3
    assert (await notified_kinds(acme, low)).count("REACHED") == 5  # a twice, b once, and c at both thresholds


async def test_balance_with_changed_custom_fields_moves_to_another_gauge(acme: Holder) -> None:
    low = await create(acme, specified(filtered("CONTRACT_CREDIT_OR_COMMIT", "team")), "25")
    await acme.put("k1", "20", kind=CREDIT, custom_fields={"team": "b"})
    assert await values(acme, low) == {("a",): 10, ("b",): 60}
    assert await acme.notified(1) == [[ShortTransition("REACHED", "25", "30", "10", "")]]
    team_b = await create(
        acme, f"low_remaining_contract_credit_balance_reached {{ {filtered('CONTRACT_CREDIT', 'team', 'b')} }}", "5"
    )
    await acme.put("k1", "20", kind=CREDIT)
    assert await notified_kinds(acme, team_b) == ["REACHED"]
    assert await values(acme, team_b) == {(): 0}


async def test_credit_grant_type_filters_select_grants(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("g1", "10", kind=GRANT, credit_grant_type="promo")
    await acme.put("g2", "20", kind=GRANT, credit_grant_type="paid")
    await acme.put("g3", "40", kind=GRANT)
    for types, expected in ((["promo"], 10), (["promo", "paid"], 30), ([], 70), (["other"], 0)):
        narrowed = " ".join(f'credit_grant_type_filters: "{one}"' for one in types)
        low = await create(acme, f"low_credit_balance_reached {{ {narrowed} }}", "5")
        assert await values(acme, low) == {(): expected}, types
        percent = await create(acme, f"low_remaining_credit_percentage_reached {{ {narrowed} }}", "5")
        assert await values(acme, percent) == ({(): 100} if expected else {}), types


async def test_seat_filter_selects_one_seat_or_every_seat_of_its_key(caller: Caller) -> None:
    acme = Holder(caller)
    for key, seat in (("user", "ann"), ("user", "bob"), ("device", "ann")):
        await acme.put(f"{key}-{seat}", "10", kind=SEAT, seat=(key, seat))
    every = await create(acme, 'low_remaining_seat_balance_reached { seat_filter { seat_group_key: "user" } }', "2")
    one = await create(
        acme,
        'low_remaining_seat_balance_reached { seat_filter { seat_group_key: "user" seat_group_value: "bob" } }',
        "2",
    )
    assert await values(acme, every) == {("ann",): 10, ("bob",): 10}
    assert await values(acme, one) == {("bob",): 10}
    await acme.spend("e1", "9", user="ann")
    await acme.spend("e2", "8.5", user="bob")
    await acme.spend("e3", "9.5", device="ann")
    assert await values(acme, every) == {("ann",): 1, ("bob",): Decimal("1.5")}
    assert await notified_kinds(acme, every) == ["REACHED", "REACHED"]
    assert await notified_kinds(acme, one) == ["REACHED"]
    await acme.put("user-cat", "1", kind=SEAT, seat=("user", "cat"))
    assert await notified_kinds(acme, every) == ["REACHED"] * 3


async def test_quantity_balances_are_measured_in_units_of_their_metric(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "100", metric="calls")
    await acme.put("c2", "100", metric="tokens")
    await acme.put("c3", "100")
    await acme.put("s1", "50", kind=SEAT, seat=("user", "ann"), metric="calls")
    of_calls = 'quantity { metric_id: "calls" }'
    low = await create(acme, f"low_remaining_commit_balance_reached {{ {of_calls} }}", "20")
    percent = await create(acme, f"low_remaining_commit_percentage_reached {{ {of_calls} }}", "20")
    seats = await create(
        acme, f'low_remaining_seat_balance_reached {{ {of_calls} seat_filter {{ seat_group_key: "user" }} }}', "1"
    )
    money = await create(acme, 'low_remaining_commit_balance_reached { spend { currency: "USD" } }', "20")
    await caller.send(caller.event("e1", "129", user="ann", cost="7"))
    assert [await values(acme, one) for one in (low, percent, seats, money)] == [
        {(): 21},
        {(): 21},
        {("ann",): 0},
        {(): 93},
    ]
    answer = await caller.send(caller.event("e2", "1"))
    assert [(one.level, one.value) for one in answer.transitions] == [("20", "20"), ("20", "20")]
    state = (await caller.state(low)).gauges[0].gauge
    assert (state.balances.quantity.metric_id, state.balances.HasField("spend")) == ("calls", False)


async def test_quantity_without_a_metric_adds_up_the_balances_in_units_of_every_metric(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "100", metric="calls")
    await acme.put("c2", "60", metric="tokens")
    await acme.put("c3", "1000")
    for balance_id, seat, metric in (("s1", "ann", "calls"), ("s2", "ann", "tokens"), ("s3", "bob", "")):
        await acme.put(balance_id, "5", kind=SEAT, seat=("user", seat), metric=metric)
    created = await caller.create(written("low_remaining_commit_balance_reached { quantity {} }", "50"))
    low, shown = created.alert_id, created.low_remaining_commit_balance_reached
    assert (shown.WhichOneof("access"), shown.quantity.metric_id) == ("quantity", "")
    percent = await create(acme, "low_remaining_commit_percentage_reached { quantity {} }", "25")
    seats = await create(
        acme, 'low_remaining_seat_balance_reached { quantity {} seat_filter { seat_group_key: "user" } }', "1"
    )
    assert [await values(acme, one) for one in (low, percent, seats)] == [{(): 160}, {(): 100}, {("ann",): 10}]
    await caller.send(caller.event("e1", "60"), caller.event("e2", "50", metric="tokens", cost="900"))
    assert [await values(acme, one) for one in (low, percent)] == [{(): 50}, {(): Decimal("31.25")}]
    assert [await notified_kinds(acme, one) for one in (low, percent)] == [["REACHED"], []]
    await acme.put("c4", "40", metric="bytes")
    assert await values(acme, low) == {(): 90}
    gauge = (await caller.state(low)).gauges[0].gauge
    assert (gauge.balances.WhichOneof("access"), gauge.balances.quantity.metric_id) == ("quantity", "")
    await acme.adjust("c4", "-40")
    assert await values(acme, low) == {(): 50}
    assert await notified_kinds(acme, low) == ["REACHED", "RESOLVED", "REACHED"]


async def test_alert_in_a_unit_without_a_balance_has_no_data(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "100")
    await acme.put("s1", "100", kind=SEAT, seat=("user", "ann"))
    balance = await create(acme, 'low_remaining_commit_balance_reached { spend { currency: "EUR" } }', "20")
    percent = await create(acme, 'low_remaining_commit_percentage_reached { spend { currency: "EUR" } }', "20")
    seats = await create(
        acme,
        'low_remaining_seat_balance_reached { spend { currency: "EUR" } seat_filter { seat_group_key: "user" } }',
        "20",
    )
    quantity = await create(
        acme,
        'low_remaining_commit_percentage_reached { quantity { metric_id: "calls" } }',
        "20",
    )
    for alert_id in (balance, percent, seats, quantity):
        assert (await caller.state(alert_id)).no_data
    # Without a commit in euros the amount is 0, which is in alarm; a percentage and a seat have no data.
    assert [await notified_kinds(acme, one) for one in (balance, percent, seats, quantity)] == [
        ["REACHED"],
        [],
        [],
        [],
    ]
    await acme.put("c2", "100", currency="EUR")
    state = await caller.state(balance)
    assert (state.no_data, state.status) == (False, customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK)
    assert not (await caller.state(percent)).no_data


async def test_each_licence_of_the_type_has_its_own_gauge(caller: Caller) -> None:
    acme = Holder(caller)
    for balance_id, license_type, amount in (("l1", "pro", "10"), ("l2", "team", "10"), ("l3", "pro", "40")):
        await acme.put(balance_id, amount, kind=LICENSE, license_type=license_type, metric="launches", draw=False)
    used = await create(
        acme,
        'license_balance_threshold_reached { license_type: "pro" }',
        "50",
        scope='customer { customer_id: "acme" }',
    )
    assert await values(acme, used) == {("l1",): 0, ("l3",): 0}
    for balance_id in ("l1", "l2", "l3"):
        await acme.adjust(balance_id, "-6")
    assert await values(acme, used) == {("l1",): 60, ("l3",): 15}
    assert await notified_kinds(acme, used) == ["REACHED"]


async def test_condition_measures_only_balances_of_its_own_kind(caller: Caller) -> None:
    acme = Holder(caller)
    await acme.put("c1", "10", kind=COMMIT)
    await acme.put("k1", "20", kind=CREDIT)
    await acme.put("g1", "40", kind=GRANT)
    await acme.put("s1", "80", kind=SEAT, seat=("user", "ann"))
    for condition, expected in (
        ("low_remaining_commit_balance_reached", 10),
        ("low_remaining_contract_credit_balance_reached", 20),
        (BOTH_KINDS, 30),
        ("low_credit_balance_reached", 40),
    ):
        assert await values(acme, await create(acme, f"{condition} {{}}", "5")) == {(): expected}


async def test_access_without_a_currency_or_with_an_invalid_unit_is_refused(caller: Caller) -> None:
    condition = "low_remaining_commit_balance_reached"
    for fields, path in (
        ("spend {}", "spend.currency"),
        ('spend { currency: "US D" }', "spend.currency"),
        ('quantity { metric_id: " calls" }', "quantity.metric_id"),
    ):
        alert = written(f"{condition} {{ {fields} }}", "5")
        await assert_violations(caller.create(alert), f"alert.{condition}.{path}")
