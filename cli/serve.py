"""The command `tidemark serve`: one server process."""

import click
import uvloop

from cli import parent
from cli.collector import collect_seldom
from cli.console import Problem
from cli.settings import configuration, configure_logs, prepared_database, unreachable
from runtime.clock import SystemClock
from runtime.configuration import Configuration
from runtime.master_keys import KeyFileUnusable
from server.authentication.api_keys import UnsafeListen
from server.calls.lifecycle import Shutdown
from server.listener import CannotListen
from server.process import serve as run_server
from store.postgres.database import Database, DatabaseUnavailable

LISTENING = "listening on "  # and host:port; the one line on standard output


@click.command()
@parent.option
def serve(with_parent: int | None) -> None:
    """Run one server process.

    It listens where TIDEMARK_LISTEN says, prints that address once it serves, and logs to standard error. SIGTERM,
    SIGINT, SIGHUP and SIGQUIT drain it.
    """
    settings = configuration()
    configure_logs(settings)
    collect_seldom()
    url = prepared_database(settings)
    try:
        uvloop.run(_serve(settings, url, with_parent))
    except CannotListen as error:
        raise Problem(
            str(error), ["choose another address with TIDEMARK_LISTEN=HOST:PORT; port 0 takes any free one"]
        ) from None
    except (UnsafeListen, KeyFileUnusable) as error:
        raise Problem(str(error)) from None
    except DatabaseUnavailable as error:
        raise unreachable(url, error) from None


async def _serve(settings: Configuration, url: str, with_parent: int | None) -> None:
    shutdown = Shutdown()
    shutdown.follow_signals()
    database = Database(url, settings.pool_size)
    async with parent.followed(with_parent):
        try:
            await run_server(settings, database, SystemClock(), shutdown, _say_where)
        finally:
            await database.close()


def _say_where(host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"{LISTENING}{shown}:{port}")
