"""Errors as the coordinator of a cluster reports them: each is what it means, and no connection is closed for it.

A statement of the test raises each with the text and the SQLSTATE that it has there, so that it comes over the wire.
"""

import psycopg
import pytest

from store.postgres import failures
from store.postgres.database import Database, DatabaseUnavailable
from store.postgres.failures import Failure, is_duplicate
from store.usage import events
from store.usage.events import DuplicateEvents

NODE = "10.0.0.7:5432"
# The SQLSTATE and the text that the coordinator sends, and what it means. None: a fault of the statement.
REPORTED: tuple[tuple[str, str, Failure | None], ...] = (
    ("XX000", f"failure on connection marked as essential: {NODE}", failures.NODE_LOST),
    ("XX000", "could not connect to any active placements", failures.NODE_LOST),
    ("XX000", "could not find an available connection", failures.NODE_LOST),
    ("XX000", "failed to prepare transaction 'citus_0_17_4_1' on host 10.0.0.7:5432", failures.NODE_LOST),
    ("XX000", "could not commit transaction for shard 102009 on at least one active node", failures.NODE_LOST),
    ("XX000", "terminating connection due to administrator command", failures.NODE_LOST),
    ("XX000", "server closed the connection unexpectedly", failures.NODE_LOST),
    ("XX000", "SSL SYSCALL error: EOF detected", failures.NODE_LOST),
    ("XX000", "SSL error: unexpected eof while reading", failures.NODE_LOST),
    ("XX000", "could not receive data from server: Connection reset by peer", failures.NODE_LOST),
    ("XX000", "could not send data to server: Broken pipe", failures.NODE_LOST),
    ("XX000", "no connection to the server", failures.NODE_LOST),
    ("XX000", "connection not open", failures.NODE_LOST),
    ("XX000", "the database system is starting up", failures.NODE_LOST),
    ("58030", f"failed to COPY to shard 102009 on {NODE}", failures.NODE_LOST),
    ("58030", f"failed to complete COPY on {NODE}", failures.NODE_LOST),
    (
        "08006",
        f"connection to the remote node tidemark@{NODE} failed with the following error: Connection refused",
        failures.NODE_LOST,
    ),
    ("08006", f"connection establishment for node {NODE} failed", failures.NODE_LOST),
    ("08006", f"could not establish any connections to the node {NODE} after 30000 ms", failures.NODE_LOST),
    ("57P01", "terminating connection due to administrator command", failures.NODE_LOST),
    ("57P03", "the database system is shutting down", failures.NODE_LOST),
    ("53300", "sorry, too many clients already", failures.TOO_MANY_CONNECTIONS),
    ("XX000", "sorry, too many clients already", failures.TOO_MANY_CONNECTIONS),
    ("40P01", "canceling the transaction since it was involved in a distributed deadlock", failures.DEADLOCK),
    ("XX000", "canceling the transaction since it was involved in a distributed deadlock", failures.DEADLOCK),
    ("XX000", "deadlock detected", failures.DEADLOCK),
    ("40001", "shard for the given value does not exist", failures.SERIALIZATION),
    ("XX000", "could not serialize access due to concurrent update", failures.SERIALIZATION),
    ("XX000", "canceling statement due to lock timeout", failures.LOCK_TIMEOUT),
    ("55P03", "canceling statement due to lock timeout", failures.LOCK_TIMEOUT),
    ("XX000", "could not acquire the lock required to move public.event", failures.LOCK_TIMEOUT),
    ("XX000", "canceling statement due to statement timeout", failures.STATEMENT_CANCELED),
    # Faults: of a statement that the cluster cannot run, of an index, and of what is stored.
    ("XX000", "a distributed query may not run from a query on a shard", None),
    (
        "XX000",
        "right sibling's left-link doesn't match: block 7 links to 9 instead of 8 in index \"a connection\"",
        None,
    ),
    ("CIINF", 'Query could not find the intermediate result file "17_1"', None),
    ("0A000", "complex joins are only supported when all distributed tables are joined", None),
    ("25001", "cannot perform query with placements that were modified over multiple connections", None),
    ("XX000", 'duplicate key value violates unique constraint "event_2026_11_pkey_102033"', None),
    ("23505", 'duplicate key value violates unique constraint "gauge_pkey_102041"', None),
)


async def test_an_error_of_a_cluster_is_what_it_means_and_closes_no_connection(database: Database) -> None:
    async with database.raw_transaction() as raw:
        session = raw.info.backend_pid
    for state, message, expected in REPORTED:
        with pytest.raises((DatabaseUnavailable, psycopg.Error)) as raised:
            async with database.raw_transaction() as raw:
                await raises(raw, state, message)
        found = raised.value.failure if isinstance(raised.value, DatabaseUnavailable) else None
        assert found == expected, message
        assert is_duplicate(raised.value) == ("duplicate key" in message), message
        async with database.raw_transaction() as raw:
            assert raw.info.backend_pid == session, message
    assert database.losses == 0


async def test_only_a_duplicate_in_a_copy_is_a_duplicate(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """COPY reports errors of a node as XX000 with the node's text; a trigger stands for the node."""
    monkeypatch.setattr(events, "_COPY", "COPY reported (message) FROM STDIN (NULL '')")
    async with database.raw_transaction() as raw:
        await raw.execute("CREATE TEMPORARY TABLE reported (message text)")
        await raw.execute(
            "CREATE FUNCTION pg_temp.report() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION '%', NEW.message USING ERRCODE = 'XX000'; END $$"
        )
        await raw.execute(
            "CREATE TRIGGER report BEFORE INSERT ON reported FOR EACH ROW EXECUTE FUNCTION pg_temp.report()"
        )
        for message, raised in (
            ('duplicate key value violates unique constraint "event_2026_11_pkey_102033"', DuplicateEvents),
            (f"failure on connection marked as essential: {NODE}", psycopg.errors.InternalError),
        ):
            with pytest.raises(raised):
                async with raw.transaction():
                    await events.copy(raw, f"{message}\n".encode())


async def raises(raw: psycopg.AsyncConnection[tuple[object, ...]], state: str, message: str) -> None:
    """Raises an error in PostgreSQL."""
    quoted = message.replace("'", "''")
    await raw.execute(
        f"DO $do$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = '{quoted}'; END $do$".encode()
    )
