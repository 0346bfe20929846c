"""The command `tidemark restored`: what a database needs after it was restored from a backup."""

import asyncio

import click

from cli.console import print_result
from cli.serving.settings import configuration, configure_logs, prepared_database, unreachable_database
from store.audit.numbering import skip_numbers
from store.notifications.feed import skip_positions
from store.postgres.database import Database, DatabaseUnavailable

# More than the notifications, or the audit entries, of any organization since the backup. A stream of notifications
# crosses the gap in as many reads as it has spans of `FeedLimits.catch_up_span`.
SKIPPED_POSITIONS = 1_000_000
POOL_SIZE = 1  # connections


@click.command()
def restored() -> None:
    """Prepare a database that was restored from a backup. Run it once, before servers and notifiers start.

    Notifications and audit entries that are written after a restore would get the positions of those that were lost.
    A stream that continues with a resume token of the lost time would leave them out. This command gives them later
    positions, so that all resume tokens stay valid and nothing is left out.
    """
    settings = configuration()
    configure_logs(settings)
    url = prepared_database(settings)
    try:
        feeds = asyncio.run(_skip(url))
    except DatabaseUnavailable as error:
        raise unreachable_database(url, error) from None
    print_result(
        f"the feeds and audit logs of {feeds} organizations continue after every resume token that was given before"
    )


async def _skip(url: str) -> int:
    database = Database(url, POOL_SIZE)
    try:
        async with database.transaction() as connection:
            await skip_numbers(connection, SKIPPED_POSITIONS)
            return await skip_positions(connection, SKIPPED_POSITIONS)
    finally:
        await database.close()
