"""What exceptions of the driver stand for."""

import psycopg
import pytest
from psycopg import errors

from store.postgres import failures
from store.postgres.cluster_errors import node_in
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


@pytest.mark.parametrize(
    ("texts", "node"),
    [
        (
            ["connection to the remote node tidemark@10.0.0.7:5432 failed with the following error: …"],
            "10.0.0.7:5432",
        ),
        (["connection to the remote node worker-1.db:5432 failed with the following error: …"], "worker-1.db:5432"),
        (["failure on connection marked as essential: 10.0.0.7:5432"], "10.0.0.7:5432"),
        (["connection establishment for node 10.0.0.7:5432 failed"], "10.0.0.7:5432"),
        (["could not establish any connections to the node 10.0.0.7:5432 after 30000 ms"], "10.0.0.7:5432"),
        (["failed to COPY to shard 102009 on 10.0.0.7:5432"], "10.0.0.7:5432"),
        (["failed to complete COPY on 10.0.0.7:5432"], "10.0.0.7:5432"),
        (["failed to prepare transaction 'citus_0_17_4_1' on host 10.0.0.7:5432"], "10.0.0.7:5432"),
        (["terminating connection", "while executing command on 10.0.0.7:5432"], "10.0.0.7:5432"),
        (["could not connect to any active placements", ""], None),
    ],
)
def test_the_node_of_an_error_is_found_in_its_texts(texts: list[str], node: str | None) -> None:
    assert node_in(*texts) == node
