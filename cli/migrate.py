"""The command `tidemark migrate`."""

import click

from cli.console import named, print_result
from cli.settings import configuration, configure_logs, migrated_database
from store.postgres.addresses import shown


@click.command()
def migrate() -> None:
    """Migrate the schema of the database to this version.

    Servers and notifiers migrate it themselves when they start, unless TIDEMARK_MIGRATE is `never`. If several
    processes migrate at once, one of them does it and the others wait.
    """
    settings = configuration()
    configure_logs(settings)
    url, is_current = migrated_database(settings)
    database = named(shown(url))
    if is_current:
        print_result(f"the schema of {database} is up to date")
    else:
        print_result(f"a newer version migrated the schema of {database}; this version can use it unchanged")
