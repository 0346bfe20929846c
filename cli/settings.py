"""The configuration of a command, and the database it names: every way to fail said in words."""

import os
from urllib.parse import parse_qs, urlsplit

from cli.console import ConfigurationProblem, Problem
from runtime import logs
from runtime.configuration import Configuration, ConfigurationError, load
from store import embedded
from store.database import DatabaseUnavailable
from store.migrate import UnsupportedServer, migrate


def configuration() -> Configuration:
    """The settings of this process's environment; a Problem that lists every bad one."""
    try:
        return load(os.environ)
    except ConfigurationError as error:
        raise ConfigurationProblem(str(error)) from None


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
    """The URL of the database, with its schema brought up to date; `reporter` as in `database_url`."""
    url = database_url(settings, reporter)
    try:
        migrate(url)
    except DatabaseUnavailable as error:
        raise unreachable(url, error) from None
    except UnsupportedServer as error:
        raise Problem(f"{error} ({shown(url)})", ["upgrade it, or name another in TIDEMARK_DATABASE_URL"]) from None
    return url


def unreachable(url: str, error: Exception) -> Problem:
    """The Problem of a database that does not answer."""
    return Problem(
        f"the database at {shown(url)} cannot be used: {first_line(error)}",
        ["check TIDEMARK_DATABASE_URL, and that the server runs and accepts connections from this machine"],
    )


def shown(url: str) -> str:
    """Where a database is, for a message: host, port and name, never the user or the password."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the address in TIDEMARK_DATABASE_URL"
    host = parts.hostname or parse_qs(parts.query).get("host", ["localhost"])[0]
    return f"{host}{port}{parts.path}"


def first_line(error: Exception) -> str:
    """The first line of what an error says; its class where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
