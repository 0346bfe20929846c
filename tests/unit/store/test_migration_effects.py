"""What statements of migrations lock and do, by their form."""

import pytest

from store.migration_effects import Effect, Lock, Work, effects, statements


def only(sql: str) -> Effect:
    """The effect of a statement that has one."""
    [found] = effects(sql)
    return found


@pytest.mark.parametrize(
    ("sql", "table", "lock", "work"),
    [
        ("ALTER TABLE alert ADD COLUMN a text", "alert", Lock.ACCESS_EXCLUSIVE, Work.CATALOGUE),
        (
            "ALTER TABLE IF EXISTS ONLY alert ADD a int DEFAULT 0 NOT NULL",
            "alert",
            Lock.ACCESS_EXCLUSIVE,
            Work.CATALOGUE,
        ),
        (
            "ALTER TABLE alert ADD COLUMN a uuid DEFAULT gen_random_uuid()",
            "alert",
            Lock.ACCESS_EXCLUSIVE,
            Work.REWRITE,
        ),
        ("ALTER TABLE alert ALTER COLUMN a TYPE bigint", "alert", Lock.ACCESS_EXCLUSIVE, Work.REWRITE),
        ("ALTER TABLE alert ALTER a SET NOT NULL", "alert", Lock.ACCESS_EXCLUSIVE, Work.SCAN),
        ("ALTER TABLE alert ALTER a DROP NOT NULL", "alert", Lock.ACCESS_EXCLUSIVE, Work.CATALOGUE),
        ("ALTER TABLE alert ALTER a SET (n_distinct = 100)", "alert", Lock.SHARE_UPDATE_EXCLUSIVE, Work.CATALOGUE),
        ("ALTER TABLE alert ADD CONSTRAINT c CHECK (a > 0)", "alert", Lock.ACCESS_EXCLUSIVE, Work.SCAN),
        (
            "ALTER TABLE alert ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
            "alert",
            Lock.ACCESS_EXCLUSIVE,
            Work.CATALOGUE,
        ),
        ("ALTER TABLE alert VALIDATE CONSTRAINT c", "alert", Lock.SHARE_UPDATE_EXCLUSIVE, Work.SCAN),
        ("CREATE INDEX i ON alert (a)", "alert", Lock.SHARE, Work.INDEX),
        ("CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON alert (a)", "alert", Lock.SHARE_UPDATE_EXCLUSIVE, Work.INDEX),
        ("UPDATE alert SET a = 1", "alert", Lock.ROW_EXCLUSIVE, Work.ROWS),
        ("CREATE TABLE e_1 PARTITION OF event DEFAULT", "event", Lock.ACCESS_EXCLUSIVE, Work.CATALOGUE),
        ("CREATE TABLE a (b int REFERENCES alert)", "alert", Lock.SHARE_ROW_EXCLUSIVE, Work.CATALOGUE),
        ("DROP TABLE IF EXISTS alert", "alert", Lock.ACCESS_EXCLUSIVE, Work.CATALOGUE),
        ("FROBNICATE alert", None, Lock.ACCESS_EXCLUSIVE, Work.UNKNOWN),
        ("ALTER TABLE alert FROBNICATE", "alert", Lock.ACCESS_EXCLUSIVE, Work.UNKNOWN),
    ],
)
def test_statement_has_its_lock_and_its_work(sql: str, table: str | None, lock: Lock, work: Work) -> None:
    found = only(sql)
    assert (found.table, found.lock, found.work) == (table, lock, work)
    assert found.concurrent == ("CONCURRENTLY" in sql)


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE alert DROP COLUMN a",
        "ALTER TABLE alert RENAME COLUMN a TO b",
        "ALTER TABLE alert RENAME TO alarm",
        "ALTER TABLE alert ALTER COLUMN a TYPE bigint",
        "ALTER TABLE alert ALTER COLUMN a SET NOT NULL",
        "ALTER TABLE alert ADD COLUMN a text NOT NULL",
        "ALTER TABLE alert ADD CONSTRAINT c CHECK (a > 0) NOT VALID",
        "CREATE UNIQUE INDEX i ON alert (a)",
        "DROP TABLE alert",
        "TRUNCATE alert",
        "DROP FUNCTION f()",
        "FROBNICATE alert",
    ],
)
def test_statement_that_breaks_an_older_version_says_why(sql: str) -> None:
    assert only(sql).breaks


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE alert ADD COLUMN a text",
        "ALTER TABLE alert ADD COLUMN a text NOT NULL DEFAULT ''",
        "ALTER TABLE alert ALTER COLUMN a DROP NOT NULL",
        "ALTER TABLE alert ALTER COLUMN a SET STORAGE EXTERNAL",
        "CREATE INDEX i ON alert (a)",
        "DROP INDEX i",
        "UPDATE alert SET a = 1",
    ],
)
def test_statement_that_an_older_version_does_not_notice_breaks_nothing(sql: str) -> None:
    assert not only(sql).breaks


def test_actions_of_one_statement_are_effects_of_their_own() -> None:
    found = effects("ALTER TABLE a ADD COLUMN b numeric(38, 18) DEFAULT 1, DROP COLUMN c, ALTER d SET DEFAULT 'x, y'")
    assert [bool(one.breaks) for one in found] == [False, True, False]
    assert {one.table for one in found} == {"a"}


def test_tables_that_the_same_statements_create_are_left_out() -> None:
    assert [
        one for one in effects("CREATE TABLE a (b int); CREATE INDEX i ON a (b); INSERT INTO a SELECT 1") if one.table
    ] == []


def test_statements_of_a_block_are_found() -> None:
    block = "DO $$ BEGIN IF true THEN RETURN; END IF; LOCK TABLE a IN ACCESS EXCLUSIVE MODE; DROP TABLE b; END $$"
    assert [(one.table, one.lock) for one in effects(block)] == [("a", Lock.ACCESS_EXCLUSIVE)]


def test_semicolons_in_texts_and_comments_end_no_statement() -> None:
    text = "UPDATE a SET b = 'x; y'; -- z; w\nDO $$ a; b $$;\n;"
    assert list(statements(text)) == ["UPDATE a SET b = 'x; y'", "DO $$ a; b $$"]
