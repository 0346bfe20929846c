"""The command `tidemark migrate`."""

import click

from cli.console import named, print_result
from cli.settings import configuration, configure_logs, migrated_database
from store.postgres.addresses import shown


@click.command()
def migrate() -> None:
    """Bring the database's schema up to date.

    Servers and notifiers do so themselves when they start, unless TIDEMARK_MIGRATE is `never`. Several may at once;
    one does it, the others wait.
    """
    settings = configuration()
    configure_logs(settings)
    url, ours = migrated_database(settings)
    database = named(shown(url))
    if ours:
        print_result(f"the schema of {database} is up to date")
    else:
        print_result(f"a newer version migrated the schema of {database}; this version runs on it as it is")
