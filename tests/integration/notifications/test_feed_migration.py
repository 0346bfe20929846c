"""The migration that creates the feed gives positions to notifications that are stored already."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

import store.migrate
from store.postgres.database import sync_engine

BEFORE = "0005"

# Four notifications of two organizations. The clocks of two servers disagreed about the third and the fourth.
ROWS = """
INSERT INTO notification VALUES
    (1, 'ann', 'n1', 'a', '00000000-0000-0000-0000-000000000001', 1, 'alert.reached', 'c', '2026-01-01T01:00Z', 'x'),
    (2, 'ann', 'n2', 'a', '00000000-0000-0000-0000-000000000001', 1, 'alert.reached', 'c', '2026-01-01T02:00Z', 'x'),
    (1, 'ann', 'n3', 'a', '00000000-0000-0000-0000-000000000001', 2, 'alert.reached', 'c', '2026-01-01T04:00Z', 'x'),
    (1, 'ann', 'n4', 'a', '00000000-0000-0000-0000-000000000001', 3, 'alert.reached', 'c', '2026-01-01T03:00Z', 'x'),
    (1, 'bob', 'n5', 'a', '00000000-0000-0000-0000-000000000002', 1, 'alert.reached', 'c', '2026-01-01T05:00Z', 'x'),
    (1, 'bob', 'n6', 'a', '00000000-0000-0000-0000-000000000002', 2, 'alert.reached', 'c', '2026-01-01T05:00Z', 'x')
"""


def test_the_migration_gives_positions_to_stored_notifications(empty_url: str) -> None:
    engine = sync_engine(empty_url)
    with engine.begin() as connection:
        configuration = Config()
        folder = Path(store.migrate.__file__).parent / "migrations"
        configuration.set_main_option("script_location", str(folder))
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, BEFORE)
        connection.execute(text(ROWS))
    store.migrate.migrate(empty_url)
    with engine.connect() as connection:
        entries = connection.execute(
            text(
                "SELECT organization_id, place, notification_id, to_char(high_time, 'HH24') FROM feed_entry"
                " ORDER BY organization_id, place"
            )
        ).all()
        feeds = connection.execute(text("SELECT organization_id, last_place FROM feed ORDER BY 1")).all()
    engine.dispose()
    assert [tuple(entry) for entry in entries] == [
        (1, 1, "n1", "01"),
        (1, 2, "n3", "04"),
        (1, 3, "n4", "04"),
        (1, 4, "n5", "05"),
        (1, 5, "n6", "05"),
        (2, 1, "n2", "02"),
    ]
    assert [tuple(one) for one in feeds] == [(1, 5), (2, 1)]
