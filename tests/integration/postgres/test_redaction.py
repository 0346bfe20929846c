"""Errors of the database in the log: the error and its location, without values of the row."""

import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from io import StringIO

import psycopg
import pytest
from sqlalchemy import text

from runtime.logs import JsonFormatter, TextFormatter
from runtime.redaction import HIDDEN
from server.calls import errors
from store.postgres.database import Database
from tests.support.server.sharing import own_database

pytestmark = own_database

SECRETS = ("https://hooks.example/whsec-4711", "Bearer-s3cret", "whsec_c2VjcmV0")
URL, HEADER, KEY = SECRETS


@pytest.fixture
async def table(database: Database) -> None:
    """A table with constraints that rows of secret values violate."""
    async with database.raw_transaction() as raw:
        await raw.execute(
            "CREATE TABLE secret_row (id text PRIMARY KEY CHECK (id <> 'checked'), url text NOT NULL,"
            " header text, number integer, CONSTRAINT no_such_url CHECK (url NOT LIKE '%4711' OR number > 0))"
        )


@pytest.fixture(params=[JsonFormatter, TextFormatter])
def log(request: pytest.FixtureRequest) -> Iterator[StringIO]:
    """What this process's log says, in either form."""
    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(request.param())
    root = logging.getLogger()
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)


async def check_violation(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO secret_row VALUES (:id, :url, :header, 0)"), {"id": KEY, "url": URL, "header": HEADER}
        )


async def check_violation_of_the_driver(database: Database) -> None:
    async with database.raw_transaction() as raw:
        await raw.execute("INSERT INTO secret_row VALUES (%s, %s, %s, 0)", (KEY, URL, HEADER))


async def duplicate_key(database: Database) -> None:
    async with database.raw_transaction() as raw:
        for _ in range(2):
            await raw.execute("INSERT INTO secret_row VALUES (%s, %s, %s, 1)", (KEY, URL, HEADER))


async def null(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO secret_row (id, header) VALUES (:id, :header)"), {"id": KEY, "header": HEADER}
        )


async def copy_of_no_number(database: Database) -> None:
    async with (
        database.raw_transaction() as raw,
        raw.cursor() as cursor,
        cursor.copy("COPY secret_row FROM STDIN") as copy,
    ):
        await copy.write(f"{KEY}\t{URL}\t{HEADER}\t{HEADER}\n".encode())


async def copy_of_a_bad_row(database: Database) -> None:
    async with (
        database.raw_transaction() as raw,
        raw.cursor() as cursor,
        cursor.copy("COPY secret_row FROM STDIN") as copy,
    ):
        await copy.write(f"{KEY}\t{URL}\t{HEADER}\t{HEADER}\t{HEADER}\n".encode())


async def no_number(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text("INSERT INTO secret_row VALUES ('a', 'b', 'c', CAST(CAST(:header AS text) AS integer))"),
            {"header": HEADER},
        )


async def no_json(database: Database) -> None:
    async with database.raw_transaction() as raw:
        await raw.execute("SELECT CAST(%s AS jsonb)", (f'{{"{HEADER}": {URL}',))


async def raised_by_a_trigger(database: Database) -> None:
    async with database.raw_transaction() as raw:
        await raw.execute(
            "CREATE FUNCTION complain() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'bad \"%\" of (%)', NEW.url, NEW.header; END $$"
        )
        await raw.execute(
            "CREATE TRIGGER complain BEFORE INSERT ON secret_row FOR EACH ROW EXECUTE FUNCTION complain()"
        )
        await raw.execute("INSERT INTO secret_row VALUES (%s, %s, %s, 1)", (KEY, URL, HEADER))


async def not_to_be_sent(database: Database) -> None:
    """The driver refuses it before the server sees it."""
    async with database.transaction() as connection:
        await connection.execute(text("SELECT CAST(:header AS text)"), {"header": f"{HEADER}\0{KEY}"})


@pytest.mark.parametrize(
    "provoke",
    [
        check_violation,
        check_violation_of_the_driver,
        duplicate_key,
        null,
        copy_of_no_number,
        copy_of_a_bad_row,
        no_number,
        no_json,
        raised_by_a_trigger,
        not_to_be_sent,
    ],
)
async def test_the_log_and_the_status_contain_no_value_of_a_row(
    database: Database, table: None, log: StringIO, provoke: Callable[[Database], Awaitable[None]]
) -> None:
    logger = logging.getLogger("test")
    try:
        await provoke(database)
    except Exception as error:
        status = errors.mapped(error).status()
        logger.exception("with its traceback")
        logger.warning("in the text: %s", error)
        logger.warning("among the fields", extra={"error": error})
        chained = RuntimeError("a fault of ours")
        chained.__cause__ = error
        logger.error("as the cause of another", exc_info=chained)
        repeating = RuntimeError(str(error))
        repeating.__context__ = error
        logger.error("repeated by another", exc_info=repeating)
        logger.error("in a group", exc_info=ExceptionGroup("several", [error, chained]))
    else:
        pytest.fail("nothing went wrong")
    said = log.getvalue()
    for secret in SECRETS:
        assert secret not in said
        assert secret.encode() not in status.SerializeToString()
    # The rest names the error and its location in the program.
    assert provoke.__name__ in said
    assert said.count("Traceback") >= 4
    assert "a fault of ours" in said


async def test_the_log_keeps_names_of_tables_and_constraints(database: Database, table: None, log: StringIO) -> None:
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        await check_violation_of_the_driver(database)
    logging.getLogger("test").error("refused", exc_info=raised.value)
    assert "no_such_url" in log.getvalue()
    assert "23514" in log.getvalue()


def test_other_exceptions_are_logged_unchanged(log: StringIO) -> None:
    try:
        try:
            raise KeyError("key")
        except KeyError as error:
            raise ValueError('"quoted" (and) more') from error
    except ValueError:
        logging.getLogger("test").exception("wrong: %s of %d", "one", 2)
    said = log.getvalue()
    if said.startswith("{"):
        line = json.loads(said)
        assert line["message"] == "wrong: one of 2"
        said = line["exception"]
    assert "KeyError: 'key'" in said
    assert "direct cause" in said
    assert 'ValueError: "quoted" (and) more' in said
    assert HIDDEN not in said
