"""The settings of PostgreSQL that suit Tidemark, by the memory and the disk of its machine.

The embedded server runs with them, and one's own server should. docs/performance.md ("Settings of PostgreSQL") has
the measured effect of each.
"""

from dataclasses import dataclass

MB, GB = 1024**2, 1024**3


@dataclass(frozen=True)
class Machine:
    """What the server can use, in bytes. memory: of the machine or of its container. disk: of the file system."""

    memory: int
    disk: int


@dataclass(frozen=True)
class Setting:
    """A setting, its recommended value as PostgreSQL writes it, and what another value costs."""

    name: str
    value: str
    why: str


# What an acknowledgement promises depends on these: with another value, a crash loses events that were acknowledged.
DURABLE = (
    Setting("fsync", "on", "without it, a crash of the machine can destroy the database"),
    Setting("full_page_writes", "on", "without it, a page that was half written in a crash is lost"),
    Setting("synchronous_commit", "on", "without it, a crash loses the commits of its last second"),
)


def recommended(machine: Machine) -> tuple[Setting, ...]:
    """The settings that decide the speed.

    The buffers hold the newest part of the indexes, which every commit reads; the server and the notifier need the
    rest of the memory. The log of changes may take a twentieth of the disk: the larger it is, the fewer checkpoints
    write whole pages into it.
    """
    log = _within(machine.disk // 20, 256 * MB, 16 * GB)
    return (
        Setting(
            "shared_buffers",
            _megabytes(_within(machine.memory // 4, 32 * MB, 8 * GB)),
            "a key of events that the buffers do not hold is read again for each commit",
        ),
        Setting(
            "effective_cache_size",
            _megabytes(_within(machine.memory // 2, 64 * MB, 64 * GB)),
            "the planner takes an index as costly if it expects that the index has to be read from the disk",
        ),
        Setting(
            "maintenance_work_mem",
            _megabytes(_within(machine.memory // 32, 16 * MB, GB)),
            "a vacuum that cannot remember all dead rows reads the indexes several times",
        ),
        Setting("max_wal_size", _megabytes(log), "each checkpoint makes the log contain whole pages again"),
        Setting("min_wal_size", _megabytes(max(log // 8, 80 * MB)), "files of the log are used again, not made anew"),
        Setting("checkpoint_timeout", "15min", "as max_wal_size"),
        Setting("wal_compression", "off", "keys of events are hashes, which do not become smaller"),
        Setting("random_page_cost", "1.1", "the default is for rotating disks"),
        Setting("jit", "off", "compilation takes longer than any statement of Tidemark"),
        Setting("autovacuum", "on", "gauges and deliveries are written again and again"),
        Setting("autovacuum_naptime", "15s", "the table of deliveries in progress grows until the next vacuum"),
    )


def _within(value: int, least: int, most: int) -> int:
    return min(max(value, least), most)


def _megabytes(size: int) -> str:
    return f"{size // MB}MB"
