"""`tidemark secrets reencrypt` against a real database."""

import base64

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from cli.main import tidemark
from runtime.clock import SystemClock
from store.endpoints.rows import Settings
from store.postgres.database import Database, sync_engine
from store.tables.webhooks import endpoint_secret
from tests.support.notifier.house import House
from webhooks.secret_box import SecretBox, secret_context

OLD = "test:dGlkZW1hcmsgdGVzdHMgYW5kIG5vdGhpbmcgZWxzZSE="
NEW_KEY = b"n" * 32
NEW = f"new:{base64.b64encode(NEW_KEY).decode()}"


@pytest.fixture
async def secret(database: Database) -> str:
    """The secret of an endpoint that also has credentials."""
    house = await House.build(database, SystemClock())
    settings = Settings(url="https://hooks.example.com/", credentials="Bearer hush")
    return (await house.endpoint("", settings=settings)).secret


def test_reencrypt_replaces_the_key_of_stored_secrets(
    secret: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", database_url)

    def run(keys: str) -> tuple[int, str]:
        monkeypatch.setenv("TIDEMARK_SECRET_KEYS", keys)
        result = CliRunner().invoke(tidemark, ["secrets", "reencrypt"])
        return result.exit_code, result.output

    code, output = run(NEW)
    assert code == 1
    assert "'test', which is not given" in output
    code, output = run(f"{NEW},{OLD}")
    assert (code, "1 signing secrets, 1 credentials" in output) == (0, True)
    code, output = run(NEW)
    assert (code, "0 signing secrets, 0 credentials" in output) == (0, True)

    engine = sync_engine(database_url)
    with engine.connect() as connection:
        row = connection.execute(select(endpoint_secret)).one()
    engine.dispose()
    place = secret_context(row.organization_id, row.endpoint_id, row.sequence)
    assert SecretBox([("new", NEW_KEY)]).open(row.ciphertext, place).decode() == secret


def test_reencrypt_without_a_key_prints_a_hint(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_DATABASE_URL", database_url)
    result = CliRunner().invoke(tidemark, ["secrets", "reencrypt"])
    assert result.exit_code == 1
    assert "openssl rand -base64 32" in result.output
