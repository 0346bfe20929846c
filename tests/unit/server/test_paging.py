"""Pages: sizes are limited, and a token belongs to one list of one organization with one set of filters."""

import base64
from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.calls import current_call
from server.calls.errors import InvalidArgument
from server.calls.paging import Cursor, Page, read_page
from server.calls.validation import Violations
from store.identity.callers import Caller
from store.identity.organizations import Organization

TIME = datetime(2026, 3, 15, 12, 0, 0, 123456, tzinfo=UTC)


def act_for(organization_id: int) -> None:
    current_call.begin(current_call.Call("/x/Y", "r", Caller(Organization(organization_id, f"org{organization_id}"))))


@pytest.fixture(autouse=True)
def _in_a_call() -> None:
    act_for(1)


def page_of(
    page_size: int = 2,
    page_token: str = "",
    method: str = "ListAlerts",
    filters: tuple[str, ...] = ("pro", ""),
    shape: tuple[type, ...] = (datetime, str, int),
) -> Page:
    violations = Violations()
    page = read_page(violations, page_size, page_token, method, filters, shape)
    violations.raise_if_any()
    return page


def token_after(cursor: Cursor) -> str:
    return page_of().next_token([cursor, cursor, cursor], lambda row: row)


@pytest.mark.parametrize(
    ("asked", "given_"), [(0, 50), (1, 1), (50, 50), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)]
)
def test_page_sizes_have_a_default_and_a_maximum(asked: int, given_: int) -> None:
    page = page_of(asked)
    assert (page.size, page.limit, page.after) == (given_, given_ + 1, None)


def test_a_negative_page_size_is_a_violation() -> None:
    with pytest.raises(InvalidArgument, match="page_size"):
        page_of(-1)


def test_the_last_page_has_no_token() -> None:
    assert page_of().next_token(["a", "b"], lambda row: (row,)) == ""
    assert page_of().next_token([], lambda row: (row,)) == ""


def test_one_row_above_the_page_size_means_another_page() -> None:
    page = page_of(shape=(str,))
    rows = ["a", "b", "c"]
    assert page.shown(rows) == ["a", "b"]
    token = page.next_token(rows, lambda row: (row,))
    assert page_of(page_token=token, shape=(str,)).after == ("b",)


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.text().filter(lambda text: "\0" not in text),
    st.integers(-(2**63), 2**63 - 1),
)
def test_a_cursor_is_equal_after_it_is_read_from_its_token(time: datetime, text: str, number: int) -> None:
    act_for(1)  # each example runs in the context of the test function
    assert page_of(page_token=token_after((time, text, number))).after == (time, text, number)


def test_a_token_is_accepted_with_another_page_size() -> None:
    assert page_of(7, token_after((TIME, "a", 1))).after == (TIME, "a", 1)


@pytest.mark.parametrize(
    "other",
    [{"method": "ListCustomers"}, {"filters": ("basic", "")}, {"filters": ("", "pro")}, {"filters": ("pro",)}],
)
def test_a_token_of_another_list_is_refused(other: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        page_of(page_token=token_after((TIME, "a", 1)), **other)  # type: ignore[arg-type]  # one keyword each
    assert "ERROR_REASON_PAGE_TOKEN_INVALID" in str(raised.value.status())
    assert [violation.path for violation in raised.value.violations] == ["page_token"]


def test_a_token_of_another_organization_is_refused() -> None:
    token = token_after((TIME, "a", 1))
    act_for(2)
    with pytest.raises(InvalidArgument):
        page_of(page_token=token)


def forged(*cursor: object) -> str:
    """A token with the right digest and any cursor."""
    digest = orjson.loads(base64.urlsafe_b64decode(token_after((TIME, "a", 1)) + "=="))[0]
    return base64.urlsafe_b64encode(orjson.dumps([digest, *cursor])).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        (),
        (TIME.isoformat(), "a"),
        (TIME.isoformat(), "a", 1, 2),
        ("yesterday", "a", 1),
        ("2026-03-15T12:00:00", "a", 1),
        (7, "a", 1),
        (TIME.isoformat(), "a\0b", 1),
        (TIME.isoformat(), None, 1),
        (TIME.isoformat(), ["a"], 1),
        (TIME.isoformat(), "a", True),
        (TIME.isoformat(), "a", 1.5),
        (TIME.isoformat(), "a", 2**63),
        (TIME.isoformat(), "a", "1"),
    ],
)
def test_a_forged_cursor_of_the_wrong_types_is_refused(cursor: tuple[object, ...]) -> None:
    assert page_of(page_token=forged(TIME.isoformat(), "a", 1)).after == (TIME, "a", 1)
    with pytest.raises(InvalidArgument):
        page_of(page_token=forged(*cursor))


@pytest.mark.parametrize("token", ["x", "====", "ä", "e30", "bnVsbA", "W10", "a" * 5000, "W1tdXQ", "\0"])
def test_a_text_that_is_not_a_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument):
        page_of(page_token=token)


@given(st.text())
def test_any_text_is_refused_as_an_invalid_token(token: str) -> None:
    act_for(1)
    if token:
        with pytest.raises(InvalidArgument):
            page_of(page_token=token)
