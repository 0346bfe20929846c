"""The command `tidemark migrate`."""

import click

from cli.console import standard_output
from cli.settings import configuration, configure_logs, prepared_database, shown


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date.

    Servers and notifiers do so themselves when they start. Several may at once; one does it, the others wait.
    """
    settings = configuration()
    configure_logs(settings)
    url = prepared_database(settings)
    standard_output().print(f"the schema of [name]{shown(url)}[/] is up to date")
