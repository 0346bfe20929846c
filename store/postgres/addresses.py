"""Database addresses: what a connection URL says, what is wrong with it, and how it may be shown.

The driver's own parser reads the URL, so whatever libpq takes works: several hosts (`a:5432,b:5432`), socket
directories, `sslmode`, `target_session_attrs`, `options`.
"""

import re

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

SCHEMES = ("postgresql://", "postgres://")
EXAMPLE = "postgresql://user:password@host:5432/database"
MAX_PORT = 65_535

# Parameters that other drivers read from a URL. libpq refuses what it does not know, so each needs its own advice.
_FOREIGN = {
    "pgbouncer": "leave it out; a PgBouncer in front of the database must use pool_mode = session",
    "schema": "write options=-csearch_path%3DNAME instead",
    "connection_limit": "leave it out; TIDEMARK_POOL_SIZE bounds the connections of a process",
    "pool_timeout": "leave it out; TIDEMARK_POOL_SIZE bounds the connections of a process",
    "ssl": "write sslmode=require instead",
}

_QUOTED = re.compile(r'"[^"]*"')


class BadAddress(ValueError):
    """The URL names no PostgreSQL server; the message says what is wrong and never holds the password."""


def parameters(url: str) -> dict[str, str]:
    """The connection parameters of the URL, by libpq's names.

    Raises BadAddress when libpq would refuse it, or would only notice at the first connection.
    """
    if not url.startswith(SCHEMES):
        raise BadAddress(f"it does not name a PostgreSQL server: write {EXAMPLE}")
    try:
        found = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
    except ProgrammingError as error:
        raise BadAddress(_explained(str(error))) from None
    hosts, ports = _parts(found.get("host", "")), _parts(found.get("port", ""))
    if len(ports) > 1 and len(ports) != len(hosts):
        raise BadAddress(
            f"it names {len(hosts)} hosts and {len(ports)} ports: give each host its port, or all the same"
        )
    if any("@" in host for host in hosts):
        raise BadAddress("the user or the password holds an @: write it as %40")
    for port in ports:
        if port and not (port.isdecimal() and 1 <= int(port) <= MAX_PORT):
            raise BadAddress(f"the port {port!r} is not a number from 1 to {MAX_PORT}")
    return found


def conninfo(url: str, **more: str | int) -> str:
    """The driver's connection string, with more parameters.

    Of several hosts the one is used that takes writes, unless the URL says `target_session_attrs` itself. With one
    host that is left to the session's own check, which can say what it found.
    """
    found = parameters(url)
    several = "," in found.get("host", "") + found.get("hostaddr", "")
    wanted = {"target_session_attrs": "read-write"} if several else {}
    return make_conninfo(url, **{**more, **wanted, **found})


def shown(url: str) -> str:
    """Where the database is, for a message: hosts, ports and name, never the user, the password or an option."""
    try:
        found = parameters(url)
    except BadAddress:
        return "the address in TIDEMARK_DATABASE_URL"
    hosts = _parts(found.get("host") or found.get("hostaddr") or "localhost")
    ports = _parts(found.get("port", ""))
    if len(ports) < len(hosts):
        ports = [ports[0] if ports else ""] * len(hosts)
    hosts = [f"[{host}]" if ":" in host else host for host in hosts]
    places = [f"{host}:{port}" if port else host for host, port in zip(hosts, ports, strict=True)]
    return ",".join(places) + (f"/{found['dbname']}" if "dbname" in found else "")


def _parts(listed: str) -> list[str]:
    return listed.split(",") if listed else []


def _explained(said: str) -> str:
    """What libpq said of the URL, without the value that it quotes, which may be a password."""
    reason, _, quoted = said.strip().partition(": ")
    if reason == "invalid URI query parameter":
        name = quoted.strip().strip('"')
        return f"it has the parameter {name!r}, which PostgreSQL does not know: " + _FOREIGN.get(
            name, "leave it out, or correct its name"
        )
    reason = _QUOTED.sub("…", reason)
    return f"PostgreSQL cannot read it ({reason}): write {EXAMPLE}, with %XX for special characters in the password"
