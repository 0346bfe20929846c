"""The statements of the store: none has a form that cannot be executed on distributed tables."""

from functools import cache

import pytest

from tests.support.postgres.affected_rows import counts_selected_rows, functions_that_use, used_numbers
from tests.support.postgres.one_server import ONE_SERVER
from tests.support.postgres.statement_scan import (
    functions_in_upserts,
    locks_of_several,
    offences,
    row_locks_without_customer,
    statements,
    upserts_with_functions,
)


@cache
def found_statements() -> list[tuple[str, str]]:
    """The statements with their places. A scan takes most of a second: too long for the import of this module."""
    return list(statements())


def test_the_scan_finds_the_statements_of_the_store() -> None:
    assert len(found_statements()) > 400
    places = {place for place, _ in found_statements()}
    assert {"usage.gauges._LOCK", "balances.wallet_timers._DUE_TIMERS", "deliveries.claims._CLAIM"} <= places


def test_no_statement_has_a_form_that_cannot_be_distributed() -> None:
    found = [
        f"{place}: {offence}"
        for place, text in found_statements()
        if place not in ONE_SERVER
        for offence in offences(text)
    ]
    assert found == []


def test_no_function_locks_rows_of_several_customers() -> None:
    # Only where no table is distributed; otherwise `_locked` locks them.
    assert row_locks_without_customer() == ["store.deliveries.redelivery_steps._notifications"]


def test_no_upsert_calls_a_function_for_rows_that_are_there() -> None:
    assert functions_in_upserts() == []


def test_no_number_of_rows_is_used_that_citus_gives_otherwise() -> None:
    # Functions are scanned for the constants that they use, so such a statement is a constant.
    assert [place for place, text in found_statements() if ":" in place and counts_selected_rows(text)] == []
    assert used_numbers() == []


def test_each_exception_is_needed() -> None:
    offending = {place for place, text in found_statements() if offences(text)}
    assert set(ONE_SERVER) - offending == set()


@pytest.mark.parametrize(
    ("statement", "offence"),
    [
        ("SELECT * FROM wallet WHERE customer_id = ANY(%(ids)s) ORDER BY customer_id FOR UPDATE", "locks rows"),
        ("SELECT 1 FROM gauge g WHERE due < %s FOR NO KEY UPDATE OF g SKIP LOCKED", "locks rows"),
        (
            "SELECT 1 FROM unnest(%s) AS i (id), LATERAL (SELECT 1 FROM event WHERE customer_id = i.id LIMIT 1) e",
            "lateral subquery",
        ),
        (
            "SELECT r.* FROM asked, LATERAL (SELECT count(*) FROM event e WHERE e.customer_id = asked.id) AS r",
            "lateral subquery",
        ),
        ("SELECT * FROM customer c JOIN organization o USING (organization_id)", "lie apart"),
        ("UPDATE customer c SET plan_id = o.name FROM organization o WHERE o.organization_id = 1", "lie apart"),
        (
            "SELECT n.body, (SELECT count(*) FROM alert a WHERE a.customer_id = n.customer_id) FROM notification n",
            "lie apart",
        ),
        (
            "SELECT 1 FROM organization o WHERE EXISTS (SELECT 1 FROM gauge g WHERE g.number = o.number)",
            "lie apart",
        ),
        (
            "WITH gone AS (DELETE FROM audit_pending p USING notification n RETURNING p.*) SELECT * FROM gone",
            "lie apart",
        ),
        (
            "WITH RECURSIVE above AS (SELECT 1 UNION SELECT 2 FROM customer JOIN above USING (n)) SELECT 1",
            "recursive",
        ),
        ("SELECT 1 FROM wallet WHERE EXISTS (SELECT FROM wallet WHERE draw_units <> '{}')", "selects no column"),
        ("UPDATE gauge g SET value = 1 FROM found f WHERE g.ctid = f.row", "ctid"),
        (
            "INSERT INTO customer (customer_id) SELECT %s RETURNING (SELECT max(value) FROM gauge)",
            "RETURNING",
        ),
        (
            "SELECT i.id, (SELECT max(value) FROM gauge g WHERE g.customer_id = i.id) FROM unnest(%s) AS i (id)",
            "for each row of a function",
        ),
        (
            "SELECT 1 FROM event e WHERE e.event_time < date_trunc('month', %(at)s, 'UTC') + interval '1 month'",
            "adds to a time with a zone",
        ),
        ("SELECT l.amount::text, (CASE WHEN new THEN x ELSE l.update_time END)::text FROM gauge l", "text of a time"),
        ("SELECT CAST(n.create_time AS text) FROM notification n", "text of a time"),
        (
            "INSERT INTO organization_quota AS q (n) VALUES (1) ON CONFLICT (n) DO UPDATE SET update_time = now()",
            "by a function of the time",
        ),
    ],
)
def test_a_statement_that_cannot_be_distributed_is_found(statement: str, offence: str) -> None:
    assert any(offence in found for found in offences(statement)), offences(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM wallet WHERE organization_id = 1 AND customer_id = %(customer_id)s FOR UPDATE",
        "SELECT 1 FROM customer c JOIN gauge USING (organization_id, customer_id) WHERE c.customer_id = ANY(%(ids)s)",
        "SELECT * FROM customer c WHERE EXISTS (SELECT FROM usage_limit l WHERE l.customer_id = c.customer_id)",
        "SELECT * FROM gauge JOIN unnest(%(ids)s::text[]) AS i (id) ON gauge.customer_id = i.id",
        "SELECT * FROM customer WHERE organization_id IN (SELECT organization_id FROM organization)",
        "SELECT organization_id FROM organization WHERE name = %s FOR UPDATE",
        "WITH RECURSIVE step AS (SELECT 1 UNION ALL SELECT 2 FROM endpoint JOIN step USING (n)) SELECT * FROM step",
        "SELECT 1 FROM customer UNION ALL SELECT 2 FROM alert",
    ],
)
def test_a_statement_that_can_be_distributed_passes(statement: str) -> None:
    assert offences(statement) == []


def test_a_row_lock_that_sqlalchemy_writes_is_found() -> None:
    several = "def lock(ids):\n    return select(wallet).where(wallet.c.customer_id.in_(ids)).with_for_update()"
    one = "def lock(id):\n    return select(wallet).where(wallet.c.customer_id == id).with_for_update()"
    other = "def lock(id):\n    return select(endpoint).where(endpoint.c.endpoint_id == id).with_for_update()"
    assert [locks_of_several(source) for source in (several, one, other)] == [["lock"], [], []]


def test_a_function_in_an_upsert_that_sqlalchemy_writes_is_found() -> None:
    refused = "def put(s):\n    return s.on_conflict_do_update(index_elements=['n'], set_={'t': func.now()})"
    excluded = "def put(s):\n    return s.on_conflict_do_update(index_elements=['n'], set_={'t': s.excluded.t})"
    assert [upserts_with_functions(source) for source in (refused, excluded)] == [["put"], []]


@pytest.mark.parametrize(
    ("statement", "counts"),
    [
        ("INSERT INTO customer (customer_id) SELECT i FROM unnest(%s) AS i ON CONFLICT DO NOTHING", True),
        ("INSERT INTO request (n) SELECT 1 ON CONFLICT (n) DO UPDATE SET n = 2 WHERE request.n < 2", True),
        (
            "INSERT INTO customer (customer_id) SELECT i FROM unnest(%s) AS i ON CONFLICT DO NOTHING RETURNING 1",
            False,
        ),
        ("INSERT INTO request (n) SELECT 1 ON CONFLICT (n) DO UPDATE SET n = 2", False),
        ("INSERT INTO request (n) VALUES (1) ON CONFLICT DO NOTHING", False),
        ("INSERT INTO request (n) SELECT 1", False),
        ("INSERT INTO delivery (n) SELECT 1 ON CONFLICT DO NOTHING", False),  # Citus does not know the table
        ("WITH new AS (INSERT INTO request (n) SELECT 1 ON CONFLICT DO NOTHING) SELECT 1", False),
    ],
)
def test_a_statement_whose_number_of_rows_differs_is_found(statement: str, counts: bool) -> None:
    assert counts_selected_rows(statement) is counts


@pytest.mark.parametrize(
    ("lines", "uses"),
    [
        ("return (await connection.execute(_STORE, {})).rowcount", True),
        ("cursor = await connection.execute(_STORE)\n    return cursor.rowcount", True),
        ("return await connection.execute(_STORE)", True),
        ("if (await connection.execute(_STORE)).rowcount:\n        pass", True),
        ("other = _STORE.format(n=1)\n    return await connection.execute(other)", True),
        ("put = insert(t).from_select([], s).on_conflict_do_nothing()\n    return execute(put).rowcount", True),
        ("await connection.execute(_STORE)", False),
        ("other = _STORE.format(n=1)\n    await connection.execute(other)", False),
        ("return (await connection.execute(_OTHER)).rowcount", False),
    ],
)
def test_a_function_that_uses_the_number_is_found(lines: str, uses: bool) -> None:
    assert functions_that_use(f"async def store(connection):\n    {lines}", {"_STORE"}) == ["store"] * uses
