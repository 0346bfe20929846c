"""Pages of alerts are never larger than a client accepts in one answer."""

from generated.tidemark.v1 import alert_pb2
from server.calls.answer_size import DEFAULT_ROOM
from server.calls.paging import Page


def alerts(*sizes: int) -> list[alert_pb2.Alert]:
    return [alert_pb2.Alert(display_name="n" * size) for size in sizes]


def test_a_page_ends_before_the_size_limit_and_the_next_page_continues() -> None:
    rows = alerts(DEFAULT_ROOM // 2, DEFAULT_ROOM // 4, DEFAULT_ROOM // 2, 1)
    page = Page(3, None, "digest").cut(rows)
    assert page.shown(rows) == rows[:2]
    last: list[alert_pb2.Alert] = []

    def cursor_of(row: alert_pb2.Alert) -> tuple[str]:
        last.append(row)
        return ("cursor",)

    assert page.next_token(rows, cursor_of)
    assert last == [rows[1]]


def test_a_page_within_the_size_limit_is_not_cut() -> None:
    page = Page(3, None, "digest")
    assert page.cut(alerts(1, 1, 1)) is page
    # Rows after the page do not count.
    assert page.cut(alerts(1, 1, 1, DEFAULT_ROOM)) is page
    assert page.cut([]) is page


def test_a_row_above_the_size_limit_is_a_page_by_itself() -> None:
    rows = alerts(2 * DEFAULT_ROOM, 1)
    assert Page(2, None, "digest").cut(rows).shown(rows) == rows[:1]
