"""Creating, reading, listing and archiving alerts."""

import asyncio

import grpc
import pytest
from sqlalchemy import select

from generated.tidemark.v1 import alert_pb2, condition_pb2
from runtime.clock import ManualClock
from store.database import Database
from store.tables.accounts import organization
from tests.integration.alerts.client import Client, outcomes, refused
from tests.integration.server.running import running

SPEND = 'name: "spend" scope { all_customers {} } spend_threshold_reached {} thresholds { value: "10" } '
CALLS = 'name: "calls" usage_exceeded { metric_id: "calls" } thresholds { value: "10" } '
COST = 'name: "cost" cost_exceeded {} thresholds { value: "10" } '
PRO = 'scope { subscription { customer_id: "acme" subscription_id: "pro" } } '
GOLD = 'scope { plan { plan_id: "gold" } } '


def key(name: str) -> str:
    return f'uniqueness_key: "{name}" '


async def test_an_alert_is_stored_as_it_was_answered(ours: Client) -> None:
    created = await ours.create(
        """
        name: "by model" uniqueness_key: "k" scope { customer { customer_id: "acme" } }
        usage_threshold_reached { metric_id: "tokens" group_values { key: "model" value: "" } }
        thresholds { value: "12345678901234567890.123456789012345678" code: "c" resolve_value: "-1" }
        thresholds { recurring_step: "0.5" severity: SEVERITY_CRITICAL notify_on: TRANSITION_KIND_RESOLVED }
        """
    )
    assert created.alert_id.startswith("alt_")
    assert (created.version, created.state) == (1, alert_pb2.ALERT_STATE_ACTIVE)
    assert created.evaluation_status == alert_pb2.EVALUATION_STATUS_EVALUATING
    assert created.thresholds[0].value == "12345678901234567890.123456789012345678"
    await ours.settled(created.alert_id)
    created.evaluation_status = alert_pb2.EVALUATION_STATUS_DONE
    assert await ours.get(created.alert_id) == created
    assert list((await ours.list()).alerts) == [created]


async def test_everything_wrong_with_a_request_is_answered_at_once(ours: Client) -> None:
    async with refused() as answer:
        await ours.create('thresholds { value: "1e999" } spend_exceeded { currency: "€" }', request_id="x" * 129)
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD")
    assert answer.paths == [
        "request_id",
        "alert.name",
        "alert.spend_exceeded.currency",
        "alert.scope",
        "alert.thresholds[0].value",
    ]


async def test_a_condition_that_is_not_evaluated_is_refused(ours: Client) -> None:
    async with refused() as answer:
        await ours.create('name: "n" scope { all_customers {} } low_credit_balance_reached {}')
    assert (answer.code, answer.reason) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "ERROR_REASON_CONDITION_NOT_EVALUATED",
    )
    assert answer.metadata == {"condition": "low_credit_balance_reached"}
    assert not (await ours.list()).alerts


async def test_the_same_request_id_gets_the_first_answer_also_after_a_restart(
    ours: Client, database: Database, clock: ManualClock, api_keys: tuple[str, str]
) -> None:
    created = await ours.create(SPEND + key("k"), request_id="r")
    assert await ours.create(SPEND + key("k"), request_id="r") == created
    await ours.archive(created.alert_id, release=True)
    async with running(database, clock) as server:
        assert await Client(server.channel, api_keys[0]).create(SPEND + key("k"), request_id="r") == created
    assert len((await ours.list()).alerts) == 1


async def test_a_request_id_is_not_for_another_request(ours: Client) -> None:
    await ours.create(SPEND, request_id="r")
    for other in (SPEND + key("k"), SPEND.replace("10", "11")):
        async with refused() as answer:
            await ours.create(other, request_id="r")
        assert (answer.code, answer.reason) == (
            grpc.StatusCode.ALREADY_EXISTS,
            "ERROR_REASON_REQUEST_ID_REUSED",
        )
        assert answer.metadata == {"request_id": "r"}


async def test_a_request_that_was_refused_leaves_its_id_free(ours: Client) -> None:
    holder = await ours.create(SPEND + key("k"))
    async with refused():
        await ours.create(SPEND + key("k"), request_id="r")
    await ours.archive(holder.alert_id, release=True)
    assert (await ours.create(SPEND + key("k"), request_id="r")).alert_id != holder.alert_id


async def test_tries_of_one_request_at_the_same_time_create_one_alert(ours: Client) -> None:
    created = await asyncio.gather(*(ours.create(SPEND, request_id="r") for _ in range(6)))
    assert len({alert.alert_id for alert in created}) == 1
    assert len((await ours.list()).alerts) == 1


@pytest.mark.parametrize(
    ("alert", "reason"),
    [
        (SPEND + key("k"), "ERROR_REASON_UNIQUENESS_KEY_TAKEN"),
        (CALLS + PRO, "ERROR_REASON_ALERT_EXISTS"),
        (COST + GOLD, "ERROR_REASON_ALERT_EXISTS"),
    ],
)
async def test_of_creates_at_the_same_time_one_wins_and_the_others_learn_its_id(
    ours: Client, alert: str, reason: str
) -> None:
    created, others = await outcomes(ours.create(alert) for _ in range(6))
    assert (len(created), len(others)) == (1, 5)
    for other in others:
        assert (other.code, other.reason) == (grpc.StatusCode.ALREADY_EXISTS, reason)
        assert other.metadata["alert_id"] == created[0].alert_id


async def test_creates_of_different_alerts_at_the_same_time_all_succeed(ours: Client) -> None:
    created, others = await outcomes(ours.create(SPEND + key(str(number))) for number in range(8))
    assert (len(created), others) == (8, [])


async def test_a_refused_create_leaves_the_rules_as_they_were(ours: Client, database: Database) -> None:
    async def epochs() -> list[int]:
        async with database.transaction() as connection:
            return list((await connection.scalars(select(organization.c.epoch))).all())

    await ours.create(SPEND + key("k"))
    before = await epochs()
    async with refused():
        await ours.create(SPEND + key("k"))
    assert await epochs() == before


async def test_a_uniqueness_key_is_held_until_it_is_released(ours: Client) -> None:
    first = await ours.create(SPEND + key("k"))
    archived = await ours.archive(first.alert_id)
    assert (archived.state, archived.uniqueness_key_released) == (alert_pb2.ALERT_STATE_ARCHIVED, False)
    assert archived.HasField("archive_time")
    async with refused() as answer:
        await ours.create(SPEND + key("k"))
    assert answer.metadata == {"uniqueness_key": "k", "alert_id": first.alert_id}

    released = await ours.archive(first.alert_id, release=True)
    assert released.uniqueness_key_released
    assert (released.archive_time, released.uniqueness_key) == (archived.archive_time, "k")
    assert released.etag != archived.etag
    second = await ours.create(SPEND + key("k"))

    # Archiving the first once more must not take the key from the second.
    assert await ours.archive(first.alert_id, release=True) == released
    async with refused() as answer:
        await ours.create(SPEND + key("k"))
    assert answer.metadata["alert_id"] == second.alert_id


async def test_archiving_twice_returns_the_archived_alert(ours: Client) -> None:
    created = await ours.create(SPEND)
    archived = await ours.archive(created.alert_id)
    assert await ours.archive(created.alert_id) == archived == await ours.get(created.alert_id)
    assert archived.version == 2
    assert archived.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE


async def test_archives_at_the_same_time_agree(ours: Client) -> None:
    created = await ours.create(SPEND + key("k"))
    archived = await asyncio.gather(*(ours.archive(created.alert_id, release=True) for _ in range(5)))
    assert all(alert == archived[0] for alert in archived)


async def test_an_archived_alert_makes_room_for_its_successor(ours: Client) -> None:
    first = await ours.create(CALLS + PRO)
    await ours.archive(first.alert_id)
    second = await ours.create(CALLS + PRO)
    assert second.alert_id != first.alert_id


async def test_a_subscription_and_a_plan_have_one_usage_alert_for_each_metric(ours: Client) -> None:
    team = PRO.replace("pro", "team")
    for alert in (CALLS + PRO, CALLS + team, CALLS + GOLD, (CALLS + PRO).replace('"calls"', '"tokens"')):
        await ours.create(alert)
    async with refused() as answer:
        await ours.create(CALLS + GOLD)
    assert answer.reason == "ERROR_REASON_ALERT_EXISTS"


async def test_a_subscription_has_one_cost_alert_and_one_for_each_grouping(ours: Client) -> None:
    grouped = COST.replace("{}", '{ grouping_keys: ["model", "zone"] currency: "USD" }', 1)
    swapped = COST.replace("{}", '{ grouping_keys: ["zone", "model"] currency: "USD" }', 1)
    await ours.create(COST + PRO)
    await ours.create(grouped + PRO)
    for alert in (COST.replace("{}", '{ currency: "EUR" }', 1) + PRO, swapped + PRO):
        async with refused() as answer:
            await ours.create(alert)
        assert answer.reason == "ERROR_REASON_ALERT_EXISTS"


async def test_a_subscription_has_at_most_fifty_spend_alerts(ours: Client) -> None:
    def spend(number: int, scope: str) -> str:
        return f'name: "n" spend_exceeded {{ currency: "unit-{number}" }} thresholds {{ value: "1" }} {scope}'

    created = [await ours.create(spend(number, PRO)) for number in range(50)]
    async with refused() as answer:
        await ours.create(spend(50, PRO))
    assert (answer.code, answer.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "ERROR_REASON_TOO_MANY_ALERTS",
    )
    await ours.create(spend(50, GOLD))
    await ours.archive(created[0].alert_id)
    await ours.create(spend(50, PRO))


async def test_a_cost_alert_takes_the_currency_that_its_subscription_is_billed_in(ours: Client) -> None:
    await ours.put(customer='customer_id: "acme" currency: "EUR"')
    await ours.put(subscription='customer_id: "acme" subscription_id: "pro" currency: "CHF"')
    await ours.put(subscription='customer_id: "acme" subscription_id: "team"')
    scopes = [PRO, PRO.replace("pro", "team"), PRO.replace("pro", "later"), PRO.replace("acme", "new"), GOLD]
    created = [await ours.create(COST + scope) for scope in scopes]
    assert [alert.cost_exceeded.currency for alert in created] == ["CHF", "EUR", "EUR", "USD", "USD"]
    # It is kept: what is compared does not change its unit underneath the alert.
    await ours.put(subscription='customer_id: "acme" subscription_id: "pro" currency: "GBP"')
    assert (await ours.get(created[0].alert_id)).cost_exceeded.currency == "CHF"


async def test_alerts_are_listed_oldest_first_in_pages(ours: Client, clock: ManualClock) -> None:
    created = [(await ours.create(SPEND + key(str(number)))).alert_id for number in range(7)]
    seen: list[str] = []
    sizes = []
    token = ""
    while True:
        page = await ours.list(page_size=3, page_token=token)
        seen += [alert.alert_id for alert in page.alerts]
        sizes.append(len(page.alerts))
        token = page.next_page_token
        if not token:
            break
        # All were created at one moment of the standing clock, so that only the id tells them apart.
        await ours.create(SPEND + key(f"later {len(sizes)}"))
    assert sizes[:2] == [3, 3]
    assert len(seen) == len(set(seen))
    assert set(created) <= set(seen)


async def test_a_page_token_fits_only_its_own_list(ours: Client, theirs: Client) -> None:
    for number in range(3):
        await ours.create(SPEND + key(str(number)))
    token = (await ours.list(page_size=1)).next_page_token
    for call in (
        ours.list(page_size=1, page_token=token, plan_id="gold"),
        ours.list(page_size=1, page_token=token, states=[alert_pb2.ALERT_STATE_ACTIVE]),
        ours.list(page_size=1, page_token="nonsense"),
        theirs.list(page_size=1, page_token=token),
    ):
        async with refused() as answer:
            await call
        assert (answer.code, answer.reason) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "ERROR_REASON_PAGE_TOKEN_INVALID",
        )


async def test_filters_narrow_the_list(ours: Client) -> None:
    spend = await ours.create(SPEND + key("k"))
    acme = await ours.create(SPEND.replace("all_customers {}", 'customer { customer_id: "acme" }'))
    calls = await ours.create(CALLS + PRO)
    cost = await ours.create(COST + GOLD)
    await ours.archive(spend.alert_id, release=True)

    async def names(**filters: object) -> set[str]:
        return {alert.alert_id for alert in (await ours.list(**filters)).alerts}

    assert await names() == {spend.alert_id, acme.alert_id, calls.alert_id, cost.alert_id}
    assert await names(customer_id="acme") == {acme.alert_id, calls.alert_id}
    assert await names(subscription_id="pro") == {calls.alert_id}
    assert await names(plan_id="gold") == {cost.alert_id}
    assert await names(uniqueness_key="k") == {spend.alert_id}
    assert await names(states=[alert_pb2.ALERT_STATE_ARCHIVED]) == {spend.alert_id}
    types = [condition_pb2.CONDITION_TYPE_COST_EXCEEDED, condition_pb2.CONDITION_TYPE_USAGE_EXCEEDED]
    assert await names(condition_types=types) == {calls.alert_id, cost.alert_id}
    assert await names(condition_types=[condition_pb2.CONDITION_TYPE_INVOICE_TOTAL_REACHED]) == set()
    assert await names(condition_types=types, customer_id="globex") == set()


async def test_a_list_request_says_everything_that_is_wrong(ours: Client) -> None:
    async with refused() as answer:
        await ours.list(page_size=-1, customer_id="a\tb", states=[9], condition_types=[0, 99])
    assert answer.paths == ["customer_id", "condition_types[0]", "condition_types[1]", "states[0]", "page_size"]


async def test_another_organizations_alert_does_not_exist(ours: Client, theirs: Client) -> None:
    alert = await ours.create(SPEND + key("k"), request_id="r")
    for call in (theirs.get(alert.alert_id), theirs.archive(alert.alert_id, release=True)):
        async with refused() as answer:
            await call
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_ALERT_NOT_FOUND")
        assert answer.metadata == {"alert_id": alert.alert_id}
    assert not (await theirs.list()).alerts
    # Neither keys nor request ids nor what a subscription may have once reach across.
    assert (await theirs.create(SPEND + key("k"), request_id="r")).alert_id != alert.alert_id
    for client in (ours, theirs):
        await client.create(CALLS + PRO)
    assert (await ours.get(alert.alert_id)).state == alert_pb2.ALERT_STATE_ACTIVE


@pytest.mark.parametrize("alert_id", ["alt_nothing", "x", "🌊"])
async def test_an_unknown_alert_is_not_found(ours: Client, alert_id: str) -> None:
    for call in (ours.get(alert_id), ours.archive(alert_id)):
        async with refused() as answer:
            await call
        assert answer.reason == "ERROR_REASON_ALERT_NOT_FOUND"
    async with refused() as answer:
        await ours.get("")
    assert answer.paths == ["alert_id"]
