"""The PostgreSQL server: version, role in a replication, clock, connections, settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from store.postgres.database import DriverConnection


@dataclass(frozen=True)
class ServerFacts:
    """What the server is. version: as a number, 150004. start_time: of the server."""

    version: int
    version_text: str
    encoding: str
    is_standby: bool
    is_read_only: bool
    database: str
    size: int
    start_time: datetime


_FACTS = """
SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
    current_setting('server_encoding'), pg_is_in_recovery(), current_setting('transaction_read_only') = 'on',
    current_database(), pg_database_size(current_database()), pg_postmaster_start_time()
"""


async def facts(connection: DriverConnection) -> ServerFacts:
    """What the server is."""
    cursor = await connection.execute(_FACTS)
    row = await cursor.fetchone()
    assert row is not None
    return ServerFacts(*row)


async def clock(connection: DriverConnection) -> datetime:
    """The time of the server."""
    cursor = await connection.execute("SELECT clock_timestamp()")
    row = await cursor.fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


@dataclass(frozen=True)
class Connections:
    """The sessions of the server. usable: the most that are not reserved for superusers. of_tidemark: of them."""

    used: int
    usable: int
    of_tidemark: int


_CONNECTIONS = """
SELECT count(*) FILTER (WHERE backend_type = 'client backend'),
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer,
    count(*) FILTER (WHERE application_name LIKE 'tidemark %' AND datname = current_database())
FROM pg_stat_activity
"""


async def connections(connection: DriverConnection) -> Connections:
    """How many sessions there are."""
    cursor = await connection.execute(_CONNECTIONS)
    row = await cursor.fetchone()
    assert row is not None
    return Connections(*row)


async def settings(connection: DriverConnection, names: Sequence[str]) -> Mapping[str, str]:
    """The values of those of the settings that the server has, as it shows them."""
    cursor = await connection.execute(
        "SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY(%s)", (list(names),)
    )
    return dict(await cursor.fetchall())


@dataclass(frozen=True)
class Size:
    """A setting that is a size, in bytes: the server's value, PostgreSQL's default, and the least that is wanted."""

    present: int
    default: int
    wanted: int

    @property
    def is_low(self) -> bool:
        """Whether the server has less than is wanted."""
        return self.present < self.wanted


# The unit of a setting, such as 8kB or MB, has its number only if that is not 1.
_SIZES = """
SELECT name, pg_size_bytes(current_setting(name)),
    boot_val::bigint * pg_size_bytes(CASE WHEN unit ~ '^[0-9]' THEN unit ELSE '1' || unit END), pg_size_bytes(wanted)
FROM unnest(%s::text[], %s::text[]) AS w (name, wanted) JOIN pg_settings USING (name)
"""


async def sizes(connection: DriverConnection, values: Mapping[str, str]) -> Mapping[str, Size]:
    """Settings that are sizes, by name. values: the least that is wanted of each, as PostgreSQL writes it."""
    cursor = await connection.execute(_SIZES, (list(values), list(values.values())))
    return {name: Size(*row) for name, *row in await cursor.fetchall()}


@dataclass(frozen=True)
class Slot:
    """A replication slot that no replica uses. retained: bytes of the log that it keeps."""

    name: str
    retained: int


_SLOTS = """
SELECT slot_name, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
FROM pg_replication_slots WHERE NOT active AND NOT pg_is_in_recovery() ORDER BY 2 DESC LIMIT 10
"""


async def unused_slots(connection: DriverConnection) -> list[Slot]:
    """The replication slots without a replica, the largest first."""
    return [Slot(*row) for row in await (await connection.execute(_SLOTS)).fetchall()]
