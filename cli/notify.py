"""The command `tidemark notify`: one notifier process."""

import click
import uvloop

from cli import parent
from cli.collector import collect_seldom
from cli.console import Problem
from cli.settings import configuration, configure_logs, prepared_database
from notifier.process import run
from runtime.clock import SystemClock
from runtime.configuration import Configuration
from runtime.master_keys import KeyFileUnusable
from store.postgres.database import Database

RUNNING = "the notifier runs"  # the one line on standard output


@click.command()
@parent.option
def notify(with_parent: int | None) -> None:
    """Run one notifier process.

    It sends notifications to webhooks, and logs to standard error. Any number of them may run at once. SIGTERM,
    SIGINT, SIGHUP and SIGQUIT drain it.
    """
    settings = configuration()
    configure_logs(settings)
    collect_seldom()
    url = prepared_database(settings)
    try:
        uvloop.run(_notify(settings, url, with_parent))
    except KeyFileUnusable as error:
        raise Problem(str(error)) from None


async def _notify(settings: Configuration, url: str, with_parent: int | None) -> None:
    database = Database(url, settings.pool_size)
    async with parent.followed(with_parent):
        try:
            click.echo(RUNNING)
            await run(settings, database, SystemClock())
        finally:
            await database.close()
