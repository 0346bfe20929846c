"""The plan of the missing migrations of a database: what each one locks, and about how long. Nothing is changed."""

import importlib.util
import inspect as python_inspect
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from store import migrate as migrations
from store.migration_effects import Effect, Lock, Work, effects
from store.postgres.database import sync_engine

# For a machine with slow disks. The plan is to show whether something takes milliseconds, minutes or hours.
BYTES_READ = 50_000_000  # a second
ROWS_INDEXED = 200_000  # a second
ROWS_CHANGED = 20_000  # a second
CATALOGUE_SECONDS = 0.01


@dataclass(frozen=True)
class TableSize:
    """rows: as PostgreSQL estimates them. size: bytes of the table with its partitions, without indexes."""

    rows: int = 0
    size: int = 0


@dataclass(frozen=True)
class Step:
    """One statement of a migration on one table. seconds: about how long it holds the lock."""

    effect: Effect
    table: str
    size: TableSize
    seconds: float


@dataclass(frozen=True)
class PlannedMigration:
    """A migration that a database lacks. problem: why its statements cannot be known before the others ran."""

    revision: str
    summary: str
    steps: tuple[Step, ...]
    oldest_compatible: str | None
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """The missing migrations, in their order. current, head: revisions; current is None without a schema."""

    current: str | None
    head: str
    migrations: tuple[PlannedMigration, ...]

    @property
    def is_new(self) -> bool:
        """Whether the database has no schema yet."""
        return self.current is None


def plan(url: str) -> Plan:
    """Plans the migrations that the database at `url` lacks, in a transaction that only reads.

    Raises what `store.migrate.check` raises, except SchemaTooOld.
    """
    engine = sync_engine(url)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            current = migrations.usable_revision(connection)
            missing = [] if current is None else migrations.revisions_after(current)
            planned = [_planned(connection, revision) for revision in missing]
            return Plan(current, migrations.head(), tuple(planned))
    except DBAPIError as error:
        raise migrations.unavailable(error) from error
    finally:
        engine.dispose()


def _planned(connection: Connection, revision: str) -> PlannedMigration:
    module = module_of(revision)
    summary = (python_inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
    oldest: str | None = getattr(module, "oldest_compatible", None)
    try:
        with connection.begin_nested():
            transactions = [effects(";\n".join(one)) for one in recorded(module, connection)]
            steps = [step for found in transactions for step in _steps(connection, found)]
            return PlannedMigration(revision, summary, tuple(steps), oldest)
    except DBAPIError:
        # Its statements follow from rows or tables that a migration before it makes.
        return PlannedMigration(revision, summary, (), oldest, "it depends on the migrations before it")


def module_of(revision: str) -> ModuleType:
    path = migrations.script_of(revision)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Recorder(io.StringIO):
    """Alembic's output for SQL, which writes one statement at a time.

    transactions: the statements by transaction. Between COMMIT and BEGIN each one is its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.transactions: list[list[str]] = [[]]
        self._autocommit = False

    def write(self, text: str, /) -> int:
        statement = text.strip().removesuffix(";")
        if statement in ("BEGIN", "COMMIT"):
            self._autocommit = statement == "COMMIT"
            self.transactions.append([])
        else:
            # The driver's placeholders need a doubled percent sign, and the statements have none.
            self.transactions[-1].append(statement.replace("%%", "%"))
            if self._autocommit:
                self.transactions.append([])
        return len(text)


def recorded(module: ModuleType, connection: Connection) -> list[list[str]]:
    """The statements that a migration would execute, by transaction. Its queries are asked, and change nothing."""
    recorder = _Recorder()
    context = MigrationContext.configure(
        dialect=connection.dialect,
        opts={"as_sql": True, "output_buffer": recorder, "transaction_per_migration": True},
    )
    context.impl.connection = connection
    with Operations.context(context):
        module.upgrade()
    return [transaction for transaction in recorder.transactions if transaction]


def _steps(connection: Connection, found: list[Effect]) -> Iterator[Step]:
    """The steps of one transaction. A lock lasts until its end, so for what follows in it, too."""
    sized = []
    for effect in found:
        table = effect.table or (_table_of_index(connection, effect.index) if effect.index else None)
        size = None if table is None else _size(connection, table)
        if effect.lock is not Lock.NONE and (size is not None or effect.work is Work.UNKNOWN):
            sized.append((effect, table or "?", size or TableSize()))
    for number, (effect, table, size) in enumerate(sized):
        seconds = sum(_seconds(one.work, its_size) for one, _, its_size in sized[number:])
        yield Step(effect, table, size, seconds)


def _seconds(work: Work, size: TableSize) -> float:
    reading = size.size / BYTES_READ
    match work:
        case Work.CATALOGUE:
            return CATALOGUE_SECONDS
        case Work.SCAN:
            return CATALOGUE_SECONDS + reading
        case Work.INDEX:
            return CATALOGUE_SECONDS + reading + size.rows / ROWS_INDEXED
        case Work.ROWS:
            return CATALOGUE_SECONDS + size.rows / ROWS_CHANGED
        case Work.REWRITE | Work.UNKNOWN:
            return CATALOGUE_SECONDS + 3 * reading + size.rows / ROWS_INDEXED


# A partitioned table has no rows of its own.
_SIZE = text("""
SELECT CAST(sum(greatest(reltuples, 0)) AS bigint), CAST(sum(pg_table_size(oid)) AS bigint)
FROM pg_class WHERE oid IN (SELECT relid FROM pg_partition_tree(to_regclass(:name)))
   OR oid = to_regclass(:name)
""")

_TABLE_OF_INDEX = text("SELECT CAST(indrelid::regclass AS text) FROM pg_index WHERE indexrelid = to_regclass(:name)")


def _size(connection: Connection, table: str) -> TableSize | None:
    """The size of a table; None for one that does not exist yet."""
    rows, size = connection.execute(_SIZE, {"name": table}).one()
    return None if size is None else TableSize(int(rows), int(size))


def _table_of_index(connection: Connection, index: str) -> str | None:
    found: str | None = connection.scalar(_TABLE_OF_INDEX, {"name": index})
    return None if found is None else re.sub(r'^.*\.|"', "", found)
