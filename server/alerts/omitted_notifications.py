"""The page tokens of notifications that an answer to usage left out."""

import logging
from collections.abc import Sequence
from datetime import datetime

from engine.evaluation.results import RecordedTransition
from runtime.actions import LogAction
from runtime.turns import Slices
from server.calls import tokens
from server.calls.paging import MAX_TOKEN_LENGTH
from store.notifications import omitted
from store.postgres.database import Database
from store.postgres.failures import DatabaseUnavailable

logger = logging.getLogger(__name__)

_METHOD = "EvaluateUsage"


async def store_token(
    database: Database,
    organization_id: int,
    left_out: Sequence[RecordedTransition],
    now: datetime,
    slices: Slices,
) -> str:
    """A token with which ListNotifications returns the notifications of these transitions, and no others.

    Empty when none of them notifies, or when the database fails: the events are counted then, so the answer is sent
    without a token.
    """
    # By identity first: an id is a digest, and the transitions of one notification share it.
    notifications = {id(one.notification): one.notification for one in left_out if one.notification is not None}
    ids: list[str] = []
    await slices.begin()
    for notification in notifications.values():
        ids.append(notification.notification_id)
        await slices.pause()
    if not ids:
        return ""
    try:
        async with database.transaction() as connection:
            list_id = await omitted.store(connection, organization_id, list(dict.fromkeys(ids)), now)
    except DatabaseUnavailable as error:
        logger.warning(
            "an answer to usage has no page token for its omitted notifications: %s",
            error,
            extra={"action": LogAction.OMITTED_FAILED},
        )
        return ""
    return token(list_id, 0)


def token(list_id: str, after: int) -> str:
    """The token of the notifications of a list after that number."""
    return tokens.encode(_digest(), list_id, after)


def read_token(page_token: str) -> tuple[str, int] | None:
    """The list and the number in a token; None for a token of anything else."""
    match tokens.decode(page_token, MAX_TOKEN_LENGTH):
        case [str(digest), str(list_id), int(after)] if digest == _digest() and 0 <= after < 2**31:
            return (list_id, after) if "\0" not in list_id else None
    return None


def _digest() -> str:
    return tokens.digest_of(_METHOD, ())
