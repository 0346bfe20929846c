"""What exceptions of the driver stand for."""

import psycopg
import pytest
from psycopg import errors

from store.postgres import failures
from store.postgres.failures import Failure, failure_of


def lost_after(before: Exception) -> psycopg.OperationalError:
    """The error of a rollback on a connection that is gone, as the driver raises it while it handles another one."""
    error = psycopg.OperationalError("the connection is lost")
    error.__context__ = before
    return error


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (errors.IdleInTransactionSessionTimeout(), failures.SESSION_ENDED),
        (lost_after(errors.IdleInTransactionSessionTimeout()), failures.SESSION_ENDED),
        (errors.AdminShutdown(), failures.CONNECTION_LOST),
        (errors.UniqueViolation(), failures.CONNECTION_LOST),
        (ValueError(), failures.CONNECTION_LOST),
    ],
)
def test_rollback_of_a_session_that_was_idle_for_too_long_is_no_loss_of_the_server(
    before: Exception, expected: Failure
) -> None:
    assert failure_of(lost_after(before)) is expected
