"""The command `tidemark migrate`."""

import click
from rich.markup import escape

from cli.console import standard_output
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
    if ours:
        standard_output().print(f"the schema of [name]{escape(shown(url))}[/] is up to date")
    else:
        standard_output().print(
            f"a newer version migrated the schema of [name]{escape(shown(url))}[/]; this version runs on it as it is"
        )
