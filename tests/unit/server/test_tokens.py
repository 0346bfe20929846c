"""Tokens keep their form: callers store tokens of earlier versions and send them to this version."""

from datetime import UTC, datetime

import pytest

from server.alerts.subscribers.resume_tokens import ResumeTokens
from server.calls import current_call, tokens
from server.calls.current_call import Call
from server.calls.paging import Cursor, Page, read_page
from server.calls.validation import Violations
from store.identity.callers import Caller
from store.identity.organizations import Organization
from store.notifications.feed import NotificationFilter

TIME = datetime(2026, 3, 15, 12, 0, 0, 123456, tzinfo=UTC)

# Written by version 0.1 for organization 7.
PAGE_TOKENS: list[tuple[str, tuple[str, ...], Cursor, str]] = [
    (
        "ListAlerts",
        ("pro", ""),
        (TIME, "a/b?ü", 1),
        "WyJmMjJjOTNiYjE4MjllNmYyOTZmZjJkYTYiLCIyMDI2LTAzLTE1VDEyOjAwOjAwLjEyMzQ1NiswMDowMCIsImEvYj_DvCIsMV0",
    ),
    ("ListPlans", (), ("plan-1",), "WyIyMjVlMWQ5ZjQ4OGMwYzJiNDkzZmI1NmYiLCJwbGFuLTEiXQ"),
]
RESUME_TOKENS: list[tuple[NotificationFilter, int, str]] = [
    (NotificationFilter(), 0, "WzEsIjFhN2ZhOGFiZGYwMTFjZThmYWZjODQ5NyIsMF0"),
    (
        NotificationFilter(customer_ids=("bob", "acme", "bob"), alert_ids=("alt_1",), event_types=("alert.reached",)),
        2**63 - 1,
        "WzEsImM4MTQzMjNkNzY0N2UzMTYzZTFlMGQ3OCIsOTIyMzM3MjAzNjg1NDc3NTgwN10",
    ),
]


@pytest.fixture(autouse=True)
def _in_a_call() -> None:
    current_call.begin(Call("/x/Y", "r", Caller(Organization(7, "acme"))))


@pytest.mark.parametrize(("method", "filters", "cursor", "token"), PAGE_TOKENS)
def test_a_page_token_has_the_same_form_in_every_version(
    method: str, filters: tuple[str, ...], cursor: Cursor, token: str
) -> None:
    def page(page_token: str) -> Page:
        return read_page(Violations(), 2, page_token, method, filters, tuple(type(value) for value in cursor))

    assert page("").token(cursor) == token
    assert page(token).after == cursor


@pytest.mark.parametrize(("wanted", "position", "token"), RESUME_TOKENS)
def test_a_resume_token_has_the_same_form_in_every_version(
    wanted: NotificationFilter, position: int, token: str
) -> None:
    assert ResumeTokens(wanted).write(position) == token
    assert ResumeTokens(wanted).read(token) == position


def test_a_digest_belongs_to_one_organization() -> None:
    seventh = tokens.digest_of("ListAlerts", ())
    current_call.begin(Call("/x/Y", "r", Caller(Organization(8, "other"))))
    assert tokens.digest_of("ListAlerts", ()) != seventh


@pytest.mark.parametrize("text", ["", "x", "====", "ä", "e30", "bnVsbA", "\0", "WzEs"])
def test_a_text_that_is_not_a_token_has_no_values(text: str) -> None:
    assert tokens.decode(text, 100) is None


def test_a_token_above_the_limit_has_no_values() -> None:
    token = tokens.encode("a", 1)
    assert tokens.decode(token, len(token)) == ["a", 1]
    assert tokens.decode(token, len(token) - 1) is None
