"""ListAlerts: filters by label, name and time, both orders, and the total."""

from datetime import timedelta

import grpc

from generated.tidemark.v1 import list_order_pb2
from runtime.clock import ManualClock
from server.calls.validation import to_timestamp
from server.limits import ServerLimits
from tests.support.alerts.client import Client, refused
from tests.support.server.limits import with_server_limits
from tests.support.server.sharing import own_server, shares_server

pytestmark = shares_server


NEWEST_FIRST = list_order_pb2.LIST_ORDER_NEWEST_FIRST


def spend(name: str, **labels: str) -> str:
    shown = "".join(f'labels {{ key: "{key}" value: "{value}" }} ' for key, value in labels.items())
    return (
        f'display_name: "{name}" scope {{ all_customers {{}} }} spend_threshold_reached {{}}'
        f' thresholds {{ value: "10" }} {shown}'
    )


async def names(client: Client, **fields: object) -> list[str]:
    return [one.display_name for one in (await client.list(**fields)).alerts]


async def sorted_names(client: Client, **fields: object) -> list[str]:
    """The names on a page without their order: the alerts of a batch have the same time of creation."""
    return sorted(await names(client, **fields))


async def test_a_list_is_filtered_by_labels(ours: Client, theirs: Client) -> None:
    await ours.batch_create(
        spend("a", team="x", tier="gold"), spend("b", team="x"), spend("c", team="y", tier="gold"), spend("d")
    )
    await theirs.create(spend("theirs", team="x"))
    assert await sorted_names(ours, labels={"team": "x"}) == ["a", "b"]
    assert await sorted_names(ours, labels={"team": "x", "tier": "gold"}) == ["a"]
    assert await sorted_names(ours, labels={"team": "z"}) == []
    assert await sorted_names(ours, labels={"team": ""}) == []
    async with refused() as refusal:
        await ours.list(labels={"Team": "x"})
    assert (refusal.code, refusal.paths) == (grpc.StatusCode.INVALID_ARGUMENT, ["labels['Team']"])


async def test_a_list_is_filtered_by_the_beginning_of_the_display_name(ours: Client) -> None:
    await ours.batch_create(spend("100% of x"), spend("100_ of y"), spend("200"))
    assert await sorted_names(ours, display_name_prefix="100") == ["100% of x", "100_ of y"]
    assert await sorted_names(ours, display_name_prefix="100%") == ["100% of x"]
    assert await sorted_names(ours, display_name_prefix="100_") == ["100_ of y"]
    assert await sorted_names(ours, display_name_prefix="of") == []
    async with refused() as refusal:
        await ours.list(display_name_prefix="n" * 257)
    assert refusal.paths == ["display_name_prefix"]


@own_server
async def test_a_list_is_filtered_by_the_time_of_creation(ours: Client, clock: ManualClock) -> None:
    first = clock.now()
    for name in ("a", "b", "c"):
        await ours.create(spend(name))
        clock.advance(timedelta(minutes=1))
    second, third = (to_timestamp(first + timedelta(minutes=minutes)) for minutes in (1, 2))
    assert await names(ours, start_time=second) == ["b", "c"]
    assert await names(ours, end_time=second) == ["a"]
    assert await names(ours, start_time=second, end_time=third) == ["b"]


@own_server
async def test_pages_are_in_both_orders_and_their_tokens_belong_to_one(ours: Client, clock: ManualClock) -> None:
    for name in ("a", "b", "c"):
        await ours.create(spend(name))
        clock.advance(timedelta(seconds=1))
    page = await ours.list(page_size=2, order=NEWEST_FIRST)
    assert [one.display_name for one in page.alerts] == ["c", "b"]
    assert await names(ours, page_token=page.next_page_token, order=NEWEST_FIRST) == ["a"]
    assert await names(ours, order=list_order_pb2.LIST_ORDER_OLDEST_FIRST) == ["a", "b", "c"]
    async with refused() as refusal:
        await ours.list(page_token=page.next_page_token)
    assert refusal.reason == "ERROR_REASON_PAGE_TOKEN_INVALID"


async def test_the_total_is_of_all_pages_and_only_on_request(ours: Client) -> None:
    await ours.batch_create(*(spend(f"n{number}", team="x") for number in range(5)), spend("other"))
    page = await ours.list(page_size=2, include_total_size=True, labels={"team": "x"})
    assert (len(page.alerts), page.total_size) == (2, 5)
    following = await ours.list(
        page_size=2, include_total_size=True, labels={"team": "x"}, page_token=page.next_page_token
    )
    assert following.total_size == 5
    assert not (await ours.list()).HasField("total_size")
    nothing = await ours.list(include_total_size=True, labels={"team": "y"})
    assert nothing.HasField("total_size")
    assert nothing.total_size == 0


@own_server
@with_server_limits(ServerLimits(examined_alerts=2))
async def test_an_empty_page_has_a_token_when_more_alerts_are_to_be_examined(
    ours: Client, clock: ManualClock
) -> None:
    for name in ("a", "b", "c", "d", "wanted", "e"):
        await ours.create(spend(name))
        clock.advance(timedelta(seconds=1))
    pages = [await ours.list(display_name_prefix="wanted")]
    while token := pages[-1].next_page_token:
        pages.append(await ours.list(display_name_prefix="wanted", page_token=token))
    assert [[one.display_name for one in page.alerts] for page in pages] == [[], [], ["wanted"], []]
    assert [(await ours.list(display_name_prefix="wanted", include_total_size=True)).total_size] == [1]
