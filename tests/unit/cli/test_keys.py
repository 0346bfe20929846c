"""The table of `tidemark keys list`."""

from datetime import UTC, datetime, timedelta

import click
import pytest

from cli.organizations.key_options import DURATION
from cli.organizations.key_table import print_table
from store.identity.keys import KeyRecord, KeySettings
from store.identity.organizations import Organization
from store.identity.roles import Role

CREATED = datetime(2026, 3, 15, 12, 30, tzinfo=UTC)


def test_table_of_keys_is_aligned_when_names_have_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    of_customer = KeySettings(frozenset({Role.READER}), "bob", "pages", CREATED + timedelta(days=1))
    print_table(
        [
            KeyRecord("key_1", Organization(1, "acme [bold]"), CREATED, None),
            KeyRecord(
                "key_22", Organization(2, "東京ガス"), CREATED, CREATED + timedelta(hours=1), of_customer, CREATED
            ),
        ]
    )
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "key id   organization   name    roles           created            last used          expires         "
        "   revoked",
        "key_1    acme [bold]            admin           2026-03-15 12:30",
        "key_22   東京ガス       pages   reader of bob   2026-03-15 12:30   2026-03-15 12:30   2026-03-16 12:30  "
        " 2026-03-15 13:30",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("12h", timedelta(hours=12)),
        ("0d", timedelta()),
    ],
)
def test_duration_is_a_number_and_a_unit(text: str, expected: timedelta) -> None:
    assert DURATION.convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "1 d", "36501d", "999999999999d", "1w", "٣d"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        DURATION.convert(text, None, None)
