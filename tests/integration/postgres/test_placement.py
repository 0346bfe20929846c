"""The migrated schema and the placements of tables: the same tables, and what Citus can distribute."""

import pytest

from store.migrate import revisions_after
from store.migration_plan import module_of, recorded
from store.postgres.database import Database, sync_engine
from store.tables import metadata
from store.tables.placement import DISTRIBUTION_COLUMN, Placement, distributed_key_of, placements
from tests.support.postgres.distributed_ddl import ddl_offences

_TABLES = """
SELECT relname FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
"""
# Of partitions, too. The expressions of indexes that name the column contain it in a form that Citus does not accept.
_UNIQUE = """
SELECT coalesce(parent.relname, t.relname), i.relname, %(column)s = ANY(
    SELECT attname FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum = ANY(x.indkey)
)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
LEFT JOIN pg_inherits h ON h.inhrelid = t.oid LEFT JOIN pg_class parent ON parent.oid = h.inhparent
WHERE x.indisunique AND t.relnamespace = current_schema()::regnamespace
"""
_TRIGGERS = "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal"
_SEQUENCES = """
SELECT t.relname, s.seqtypid::regtype::text FROM pg_sequence s
JOIN pg_depend d ON d.objid = s.seqrelid AND d.deptype IN ('a', 'i') JOIN pg_class t ON t.oid = d.refobjid
"""
# The keys that are made anew when the tables are distributed; see store/citus/event_keys.py and moving.py.
_MADE_ANEW = {"event", *(table.name for table in metadata.tables.values() if distributed_key_of(table))}


async def _rows(database: Database, statement: str, **parameters: str) -> list[tuple[object, ...]]:
    async with database.raw_transaction() as connection:
        return await (await connection.execute(statement.encode(), parameters or None)).fetchall()


async def test_each_table_of_the_schema_has_a_placement(database: Database) -> None:
    found = {name for (name,) in await _rows(database, _TABLES)}
    # Alembic's table lies on the coordinator, unknown to Citus, as `schema_compatibility`.
    assert found - set(placements()) == {"alembic_version"}
    assert set(placements()) <= found


async def test_unique_indexes_of_distributed_tables_contain_the_customer(database: Database) -> None:
    rows = await _rows(database, _UNIQUE, column=DISTRIBUTION_COLUMN)
    by_customer = {name for name, place in placements().items() if place is Placement.BY_CUSTOMER}
    assert by_customer - _MADE_ANEW <= {table for table, _, _ in rows}
    assert [(table, index) for table, index, named in rows if table in by_customer - _MADE_ANEW and not named] == []


@pytest.mark.parametrize(
    "statement", [_TRIGGERS, _SEQUENCES + " WHERE s.seqtypid <> 'bigint'::regtype"], ids=["trigger", "sequence"]
)
async def test_no_distributed_table_has_what_citus_cannot_distribute(database: Database, statement: str) -> None:
    # Workers give out numbers from (node << 48) + 1, which only fit into a bigint.
    held = (Placement.BY_CUSTOMER, Placement.EVERY_NODE)
    assert [row for row in await _rows(database, statement) if placements().get(str(row[0])) in held] == []
    if statement is _TRIGGERS:
        assert len(await _rows(database, statement)) > 0
    else:
        assert len(await _rows(database, _SEQUENCES)) > 0


# The last revision that no distributed database has had; the migrations up to it ran before any distribution.
_BEFORE_CLUSTERS = "0048"


def test_each_migration_can_be_carried_out_on_distributed_tables(database_url: str) -> None:
    """On a cluster, migrations run on distributed tables from this revision on."""
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        found = {
            revision: [
                offence
                for transaction in recorded(module_of(revision), connection)
                for statement in transaction
                for offence in ddl_offences(statement)
            ]
            for revision in revisions_after(_BEFORE_CLUSTERS)
        }
    engine.dispose()
    assert len(found) > 0
    assert [offence for offences in found.values() for offence in offences] == []
