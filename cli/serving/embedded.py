"""The command `tidemark embedded`: runs a program, such as pg_dump or psql, with the embedded server."""

import os
import subprocess

import click

from cli.console import ConfigurationProblem, Problem
from cli.serving.settings import configuration, configure_logs, database_url
from store.embedded.tools import connection_variables


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def embedded(command: tuple[str, ...]) -> None:
    """Run COMMAND with the embedded server of TIDEMARK_DATA_DIRECTORY, which starts if it does not run.

    Programs of the server's own version of PostgreSQL are found first, and connect to it without further options:
    `tidemark embedded psql`, `tidemark embedded pg_dump --format=custom --file=tidemark.dump`. Ends with the exit
    code of the program.
    """
    settings = configuration()
    configure_logs(settings)
    if settings.database_url is not None:
        raise ConfigurationProblem("TIDEMARK_DATABASE_URL names a server of your own: run the program itself")
    url = database_url(settings)
    environment = {**os.environ, **connection_variables(settings.data_directory, url, os.environ.get("PATH", ""))}
    try:
        finished = subprocess.run(command, env=environment, check=False)
    except OSError as error:
        raise Problem(f"{command[0]} cannot be run: {error.strerror}") from None
    raise SystemExit(finished.returncode if finished.returncode >= 0 else 128 - finished.returncode)
