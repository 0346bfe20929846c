"""`tidemark secrets`: the errors that it reports before it opens the database."""

import pytest
from click.testing import CliRunner

from cli.main import tidemark


def test_invalid_secret_key_is_refused_and_not_repeated_in_the_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_SECRET_KEYS", "2026:aHVzaA==")
    result = CliRunner().invoke(tidemark, ["secrets", "reencrypt"])
    assert result.exit_code == 2
    assert "TIDEMARK_SECRET_KEYS" in result.output
    assert "aHVzaA==" not in result.output
