"""Database addresses: how they are read, refusals with their advice, and passwords that are never shown."""

import pytest
from psycopg.conninfo import conninfo_to_dict

from store.postgres.addresses import BadAddress, conninfo, parameters, shown


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://one.example:5432,two.example:5433/usage", "one.example,two.example", "5432,5433"),
        ("postgresql://one.example,two.example:5433/usage", "one.example,two.example", ",5433"),
        ("postgresql://[::1]:5432/usage", "::1", "5432"),
        ("postgresql:///usage?host=/run/pg%20sql&port=5433", "/run/pg sql", "5433"),
    ],
)
def test_an_address_is_read_as_libpq_reads_it(url: str, host: str, port: str) -> None:
    found = parameters(url)
    assert (found["host"], found["port"], found["dbname"]) == (host, port, "usage")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://db.example/usage", "does not name a PostgreSQL server"),
        ("postgresql://db.example:99999/usage", "the port '99999'"),
        ("postgresql://db.example:0/usage", "the port '0'"),
        ("postgresql://db.example:port/usage", "the port 'port'"),
        ("postgresql://a:1,b:2/usage?port=1,2,3", "2 hosts and 3 ports"),
        ("postgresql://db.example/usage?pgbouncer=true", "pool_mode = session"),
        ("postgresql://db.example/usage?schema=billing", "search_path"),
        ("postgresql://db.example/usage?sslmod=require", "'sslmod', which PostgreSQL does not know"),
        ("postgresql://user:hunter%zz2@db.example/usage", "percent-encoded"),
        ("postgresql://[::1/usage", "IPv6"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(BadAddress) as refused:
        parameters(url)
    assert reason in str(refused.value)
    assert "hunter" not in str(refused.value)


def test_an_at_sign_in_the_password_is_refused_without_showing_its_rest() -> None:
    url = "postgresql://user:hunter@2@db.example/usage"
    with pytest.raises(BadAddress, match="%40") as refused:
        parameters(url)
    assert "2@db" not in str(refused.value)
    assert shown(url) == "the address in TIDEMARK_DATABASE_URL"


def test_of_several_hosts_the_one_that_takes_writes_is_used_unless_the_address_says_otherwise() -> None:
    assert conninfo_to_dict(conninfo("postgresql://a,b/usage"))["target_session_attrs"] == "read-write"
    assert "target_session_attrs" not in conninfo_to_dict(conninfo("postgresql://a/usage"))
    chosen = conninfo("postgresql://a,b/usage?target_session_attrs=primary", connect_timeout=5)
    assert conninfo_to_dict(chosen)["target_session_attrs"] == "primary"
    assert int(str(conninfo_to_dict(chosen)["connect_timeout"])) == 5


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://user:secret@a.example:6432,b.example:6433/usage", "a.example:6432,b.example:6433/usage"),
        ("postgresql://user:secret@a.example,b.example/usage?port=6432", "a.example:6432,b.example:6432/usage"),
        ("postgresql://user:secret@[::1]:6432/usage", "[::1]:6432/usage"),
        ("postgresql://", "localhost"),
    ],
)
def test_an_address_is_shown_without_credentials(url: str, where: str) -> None:
    assert shown(url) == where
