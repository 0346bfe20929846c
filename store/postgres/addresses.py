"""Database addresses: the parameters of a connection URL, its faults, and its form without secrets.

The driver's own parser reads the URL, so everything that libpq accepts works: several hosts (`a:5432,b:5432`), socket
directories, `sslmode`, `target_session_attrs`, `options`.
"""

import re
from urllib.parse import quote, urlencode

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo

SCHEMES = ("postgresql://", "postgres://")
EXAMPLE = "postgresql://user:password@host:5432/database"
MAX_PORT = 65_535

# Advice on parameters of other drivers. libpq refuses parameters that it does not know.
_FOREIGN = {
    "pgbouncer": "leave it out; a PgBouncer in front of the database must use pool_mode = session",
    "schema": "write options=-csearch_path%3DNAME instead",
    "connection_limit": "leave it out; TIDEMARK_POOL_SIZE bounds the connections of a process",
    "pool_timeout": "leave it out; TIDEMARK_POOL_SIZE bounds the connections of a process",
    "ssl": "write sslmode=require instead",
}

# What names the server, and not how to connect to it.
_OF_SERVER = frozenset({"host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts"})

_QUOTED = re.compile(r'"[^"]*"')


class BadAddress(ValueError):
    """The URL names no PostgreSQL server. The message gives the reason and never contains the password."""


def parameters(url: str) -> dict[str, str]:
    """The connection parameters of the URL, by libpq's names.

    Raises BadAddress if libpq refuses the URL now, or would refuse it at the first connection.
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
            f"it names {len(hosts)} hosts and {len(ports)} ports: give one port for each host, or one port for all"
        )
    if any("@" in host for host in hosts):
        raise BadAddress("the user or the password contains an @: write it as %40")
    for port in ports:
        if port and not (port.isdecimal() and 1 <= int(port) <= MAX_PORT):
            raise BadAddress(f"the port {port!r} is not a number from 1 to {MAX_PORT}")
    return found


def conninfo(url: str, **more: str | int) -> str:
    """The driver's connection string. more: parameters that apply unless the URL sets them.

    Of several hosts, the driver uses the one that accepts writes, unless the URL sets `target_session_attrs`. With
    one host, the session checks this itself (`sessions.prepare`), with a better error message.
    """
    found = parameters(url)
    several = "," in found.get("host", "") + found.get("hostaddr", "")
    wanted = {"target_session_attrs": "read-write"} if several else {}
    return make_conninfo(url, **{**more, **wanted, **found})


def at_node(url: str, node: str) -> str:
    """The URL of the same database at another node of its cluster. node: host and port, as `worker-1:5432`."""
    host, _, port = node.rpartition(":")
    found = {name: value for name, value in parameters(url).items() if name not in _OF_SERVER}
    user, password, database = (found.pop(name, "") for name in ("user", "password", "dbname"))
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    address = f"{SCHEMES[0]}{login}{'@' if login else ''}[{host}]:{port}/{quote(database, safe='')}"
    address = address if ":" in host else address.replace(f"[{host}]", host, 1)
    return f"{address}?{urlencode(found, quote_via=quote)}" if found else address


def shown(url: str) -> str:
    """The address for messages: hosts, ports and database, never the user, the password or an option."""
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


def _explained(message: str) -> str:
    """The message of libpq about the URL, without the value that it quotes, which can be a password."""
    reason, _, quoted = message.strip().partition(": ")
    if reason == "invalid URI query parameter":
        name = quoted.strip().strip('"')
        return f"it has the parameter {name!r}, which PostgreSQL does not know: " + _FOREIGN.get(
            name, "leave it out, or correct its name"
        )
    reason = _QUOTED.sub("…", reason)
    return f"PostgreSQL cannot read it ({reason}): write {EXAMPLE}, with %XX for special characters in the password"
