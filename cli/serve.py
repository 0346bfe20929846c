"""The command `tidemark serve`: one server process."""

import click
import uvloop

from cli.console import Problem
from cli.garbage_collection import reduce_garbage_collection
from cli.parent import parent_option, stopping_with
from cli.processes import LISTENING
from cli.settings import configuration, configure_logs, prepared_database, unreachable_database
from runtime.clock import SystemClock
from runtime.configuration import Configuration
from runtime.master_keys import KeyFileUnusable
from server.authentication.api_keys import UnsafeListen
from server.calls.lifecycle import Shutdown
from server.listener import CannotListen
from server.process import serve as run_server
from store.postgres.database import Database, DatabaseUnavailable


@click.command()
@parent_option
def serve(with_parent: int | None) -> None:
    """Run one server process.

    It listens on TIDEMARK_LISTEN, prints that address when it serves, and logs to standard error. Any number of
    servers can share a database. SIGTERM, SIGINT, SIGHUP and SIGQUIT drain it.
    """
    settings = configuration()
    configure_logs(settings)
    reduce_garbage_collection()
    url = prepared_database(settings)
    try:
        uvloop.run(_serve(settings, url, with_parent))
    except CannotListen as error:
        raise Problem(
            str(error), ["choose another address with TIDEMARK_LISTEN=HOST:PORT; port 0 takes any free port"]
        ) from None
    except (UnsafeListen, KeyFileUnusable) as error:
        raise Problem(str(error)) from None
    except DatabaseUnavailable as error:
        raise unreachable_database(url, error) from None


async def _serve(settings: Configuration, url: str, with_parent: int | None) -> None:
    shutdown = Shutdown()
    shutdown.follow_signals()
    database = Database(url, settings.pool_size)
    async with stopping_with(with_parent):
        try:
            await run_server(settings, database, SystemClock(), shutdown, _print_address)
        finally:
            await database.close()


def _print_address(host: str, port: int) -> None:
    printed = f"[{host}]" if ":" in host else host
    click.echo(f"{LISTENING}{printed}:{port}")
