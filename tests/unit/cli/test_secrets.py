"""`tidemark secrets`: what it says before it touches anything."""

import pytest
from click.testing import CliRunner

from cli.main import tidemark


def test_a_key_that_is_none_is_refused_without_repeating_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_SECRET_KEYS", "2026:aHVzaA==")
    result = CliRunner().invoke(tidemark, ["secrets", "reencrypt"])
    assert result.exit_code == 2
    assert "TIDEMARK_SECRET_KEYS" in result.output
    assert "aHVzaA==" not in result.output
