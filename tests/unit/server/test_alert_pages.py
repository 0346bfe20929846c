"""Pages of alerts are never larger than a client accepts in one answer."""

import pytest

from generated.tidemark.v1 import alert_pb2
from generated.tidemark.v1.alert_service_pb2 import ListAlertsResponse
from server.calls import current_call
from server.calls.answer_size import DEFAULT_ROOM
from server.calls.paging import MAX_PAGE_SIZE, Page
from store.identity.callers import Caller
from store.identity.organizations import Organization


@pytest.fixture(autouse=True)
async def _in_a_call() -> None:
    current_call.begin(current_call.Call("/x/Y", "r", Caller(Organization(1, "one"))))


def alerts(*sizes: int) -> list[alert_pb2.Alert]:
    return [alert_pb2.Alert(display_name="n" * size) for size in sizes]


async def cut(page: Page, rows: list[alert_pb2.Alert]) -> tuple[Page, list[alert_pb2.Alert]]:
    """The page, and the alerts of its answer."""
    answer = ListAlertsResponse()
    cut = await page.cut_into(answer.alerts, rows)
    assert list(answer.alerts) == cut.shown(rows)
    return cut, list(answer.alerts)


async def test_a_page_ends_before_the_size_limit_and_the_next_page_continues() -> None:
    rows = alerts(DEFAULT_ROOM // 2, DEFAULT_ROOM // 4, DEFAULT_ROOM // 2, 1)
    page, shown = await cut(Page(3, None, "digest"), rows)
    assert shown == rows[:2]
    last: list[alert_pb2.Alert] = []

    def cursor_of(row: alert_pb2.Alert) -> tuple[str]:
        last.append(row)
        return ("cursor",)

    assert page.next_token(rows, cursor_of)
    assert last == [rows[1]]


async def test_a_page_within_the_size_limit_is_not_cut() -> None:
    page = Page(3, None, "digest")
    assert (await cut(page, alerts(1, 1, 1)))[0] is page
    # Rows after the page do not count.
    assert (await cut(page, alerts(1, 1, 1, DEFAULT_ROOM)))[0] is page
    assert (await cut(page, []))[0] is page


async def test_a_row_above_the_size_limit_is_a_page_by_itself() -> None:
    rows = alerts(2 * DEFAULT_ROOM, 1)
    assert (await cut(Page(2, None, "digest"), rows))[1] == rows[:1]


async def test_the_largest_page_has_its_messages_in_order() -> None:
    rows = alerts(*range(MAX_PAGE_SIZE + 1))
    page, shown = await cut(Page(MAX_PAGE_SIZE, None, "digest"), rows)
    assert (page.size, shown) == (MAX_PAGE_SIZE, rows[:MAX_PAGE_SIZE])


async def test_no_message_is_made_after_the_end_of_a_page() -> None:
    made, rows = list[int](), alerts(DEFAULT_ROOM // 2, DEFAULT_ROOM, 1, 1)

    def message(number: int) -> alert_pb2.Alert:
        made.append(number)
        return rows[number]

    answer = ListAlertsResponse()
    page = await Page(3, None, "digest").cut_into(answer.alerts, map(message, range(4)))
    assert (page.size, len(answer.alerts), made) == (1, 1, [0, 1])
