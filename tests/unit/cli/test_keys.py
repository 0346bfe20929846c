"""The table of `tidemark keys list`."""

from datetime import UTC, datetime, timedelta

import pytest

from cli.keys import print_table
from store.identity.keys import KeyRecord
from store.identity.organizations import Organization

CREATED = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)


def test_table_of_keys_is_aligned_when_names_have_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(
        [
            KeyRecord("key_1", Organization(1, "acme [bold]"), CREATED, None),
            KeyRecord("key_22", Organization(2, "東京ガス"), CREATED, CREATED + timedelta(hours=1)),
        ]
    )
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "key id   organization   created            revoked",
        "key_1    acme [bold]    2026-03-15 12:30",
        "key_22   東京ガス       2026-03-15 12:30   2026-03-15 13:30",
    ]
