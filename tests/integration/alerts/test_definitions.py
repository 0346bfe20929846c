"""Creating, reading, listing and archiving alerts."""

import asyncio

import grpc
import pytest

from generated.tidemark.v1 import alert_pb2, condition_pb2
from runtime.clock import ManualClock
from tests.support.alerts.client import Client, refused
from tests.support.server.sharing import shares_server

pytestmark = shares_server

SPEND = 'display_name: "spend" scope { all_customers {} } spend_threshold_reached {} thresholds { value: "10" } '
CALLS = 'display_name: "calls" usage_exceeded { metric_id: "calls" } thresholds { value: "10" } '
COST = 'display_name: "cost" cost_exceeded {} thresholds { value: "10" } '
PRO = 'scope { subscription { customer_id: "acme" subscription_id: "pro" } } '
GOLD = 'scope { plan { plan_id: "gold" } } '


def key(name: str) -> str:
    return f'uniqueness_key: "{name}" '


async def test_an_alert_is_stored_as_it_was_answered(ours: Client) -> None:
    created = await ours.create(
        """
        display_name: "by model" uniqueness_key: "k" scope { customer { customer_id: "acme" } }
        usage_threshold_reached { metric_id: "tokens" group_values { key: "model" value: "" } }
        thresholds { value: "12345678901234567890.123456789012345678" code: "c" resolve_value: "-1" }
        thresholds { recurring_step: "0.5" severity: SEVERITY_CRITICAL notify_on: TRANSITION_KIND_RESOLVED }
        """
    )
    assert created.alert_id.startswith("alt_")
    assert (created.version, created.state) == (1, alert_pb2.ALERT_STATE_ACTIVE)
    assert created.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE  # the customer is unknown
    assert created.thresholds[0].value == "12345678901234567890.123456789012345678"
    assert await ours.get(created.alert_id) == created
    assert list((await ours.list()).alerts) == [created]


async def test_all_violations_of_a_create_request_are_in_one_answer(ours: Client) -> None:
    async with refused() as answer:
        await ours.create('thresholds { value: "1e999" } spend_exceeded { currency: "€" }', request_id="x" * 129)
    assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ERROR_REASON_INVALID_FIELD")
    assert answer.paths == [
        "request_id",
        "alert.display_name",
        "alert.spend_exceeded.currency",
        "alert.scope",
        "alert.thresholds[0].value",
    ]


async def test_a_condition_of_one_customer_refuses_other_scopes(ours: Client) -> None:
    async with refused() as answer:
        await ours.create('display_name: "n" scope { all_customers {} } credit_balance_depleted {}')
    assert (answer.code, answer.paths) == (grpc.StatusCode.INVALID_ARGUMENT, ["alert.scope"])
    assert not (await ours.list()).alerts


async def test_archiving_twice_returns_the_archived_alert(ours: Client) -> None:
    created = await ours.create(SPEND)
    archived = await ours.archive(created.alert_id)
    assert await ours.archive(created.alert_id) == archived == await ours.get(created.alert_id)
    assert archived.version == 2
    assert archived.evaluation_status == alert_pb2.EVALUATION_STATUS_DONE


async def test_concurrent_archives_return_the_same_alert(ours: Client) -> None:
    created = await ours.create(SPEND + key("k"))
    archived = await asyncio.gather(*(ours.archive(created.alert_id, release=True) for _ in range(5)))
    assert all(alert == archived[0] for alert in archived)


async def test_a_cost_alert_gets_the_currency_of_its_subscription(ours: Client) -> None:
    await ours.put(customer='customer_id: "acme" currency: "EUR"')
    await ours.put(subscription='customer_id: "acme" subscription_id: "pro" currency: "CHF"')
    await ours.put(subscription='customer_id: "acme" subscription_id: "team"')
    scopes = [PRO, PRO.replace("pro", "team"), PRO.replace("pro", "later"), PRO.replace("acme", "new"), GOLD]
    created = [await ours.create(COST + scope) for scope in scopes]
    assert [alert.cost_exceeded.currency for alert in created] == ["CHF", "EUR", "EUR", "USD", "USD"]
    # The alert keeps its currency: the values that it compares do not change their unit.
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
        # All were created at one moment of the standing clock, so that only their ids differ.
        await ours.create(SPEND + key(f"later {len(sizes)}"))
    assert sizes[:2] == [3, 3]
    assert len(seen) == len(set(seen))
    assert set(created) <= set(seen)


async def test_a_page_token_is_refused_by_another_list(ours: Client, theirs: Client) -> None:
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


async def test_each_filter_narrows_the_list(ours: Client) -> None:
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


async def test_all_violations_of_a_list_request_are_in_one_answer(ours: Client) -> None:
    async with refused() as answer:
        await ours.list(page_size=-1, customer_id="a\tb", states=[9], condition_types=[0, 99])
    assert answer.paths == ["customer_id", "condition_types[0]", "condition_types[1]", "states[0]", "page_size"]


async def test_an_alert_of_another_organization_is_not_found(ours: Client, theirs: Client) -> None:
    alert = await ours.create(SPEND + key("k"), request_id="r")
    for call in (theirs.get(alert.alert_id), theirs.archive(alert.alert_id, release=True)):
        async with refused() as answer:
            await call
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "ERROR_REASON_ALERT_NOT_FOUND")
        assert answer.metadata == {"alert_id": alert.alert_id}
    assert not (await theirs.list()).alerts
    # Uniqueness keys, request ids and natural keys belong to one organization.
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
