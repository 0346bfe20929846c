"""The commands `tidemark keys …`: API keys of organizations."""

import asyncio
import sys
import unicodedata
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from functools import partial
from typing import TypeVar

import click

from cli.console import Problem, bad, named, print_progress, print_result, warn
from cli.settings import configuration, configure_logs, prepared_database, unreachable
from runtime.clock import SystemClock
from store.identity import keys as key_store
from store.identity.keys import MAX_NAME_LENGTH
from store.postgres.database import Database, DatabaseUnavailable

Result = TypeVar("Result")

SEPARATOR = "   "  # between two columns of the table
POOL_SIZE = 1  # connections


@click.group()
def keys() -> None:
    """Make, list and revoke API keys.

    A key stands for an organization. While no key was ever made, a server listens on this machine only and takes
    every caller for the organization `default`; from the first key on, callers need one.
    """


def _organization(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not 1 <= len(value) <= MAX_NAME_LENGTH or value != value.strip() or not value.isprintable():
        raise click.BadParameter(f"write 1 to {MAX_NAME_LENGTH} printable characters, without blanks at either end")
    return value


@keys.command()
@click.option("--organization", required=True, callback=_organization, help="Whose key; created when it is new.")
@click.option(
    "--take-over/--no-take-over",
    default=None,
    help="Whether what was done without a key so far, which the organization `default` holds, becomes this"
    " organization's: `default` gets its name. On a terminal, the default is to ask.",
)
def create(organization: str, take_over: bool | None) -> None:
    """Make a key and print it, this once."""

    async def leaves_behind(database: Database) -> bool:
        async with database.transaction() as connection:
            return await key_store.leaves_behind(connection, organization)

    async def run(database: Database) -> key_store.CreatedKey:
        async with database.transaction() as connection:
            return await key_store.create_key(
                connection, organization, SystemClock().now(), take_over=bool(take_over)
            )

    if take_over is None and sys.stdin.isatty() and sys.stderr.isatty() and _with_database(leaves_behind):
        take_over = click.confirm(
            "Callers without a key have stored data in the organization `default`. The first key shuts them out."
            f"\nRename `default` to {organization}, so that this key sees that data?",
            default=None,
            err=True,
        )
    try:
        created = _with_database(run)
    except key_store.CannotTakeOver as error:
        raise Problem(
            str(error),
            [
                "take `default` over under a name that is new",
                "or make a key of its own for it: tidemark keys create --organization default",
            ],
        ) from None
    if created.took_over:
        print_progress(f"the organization {named('default')} is called {named(organization)} now, with what it holds")
    elif take_over:
        print_progress(f"there was nothing to take over: the organization {named('default')} holds no data")
    print_progress(
        f"key {named(created.key_id)} of the organization {named(organization)}."
        " It is shown this once; what is stored is its hash.\n"
        f"Callers present it as the metadata {named('authorization: Bearer KEY')};"
        " the commands take it from TIDEMARK_KEY."
    )
    if created.left_behind:
        print_progress(
            f"{warn('note')} This is the first key: callers without one are refused from now on, and what they stored"
            f" stays in the organization {named('default')}, which the key of {organization} does not see.\n"
            f"     To reach it, make a key for it: {named('tidemark keys create --organization default')}.\n"
            "     To give it another name with all that it holds, one that is new:"
            f" {named('tidemark keys create --organization NAME --take-over')}."
        )
    click.echo(created.key)


@keys.command(name="list")
@click.option("--organization", help="Only those of this organization.")
def list_keys(organization: str | None) -> None:
    """List the keys that were made, revoked ones too; never the keys themselves."""

    async def run(database: Database) -> list[key_store.KeyRecord]:
        async with database.transaction() as connection:
            return await key_store.list_keys(connection)

    records = [record for record in _with_database(run) if organization in (None, record.organization.name)]
    if records:
        print_table(records)
    else:
        print_progress("there are no keys")


def print_table(records: Sequence[key_store.KeyRecord]) -> None:
    """Prints a row for each key to standard output, below a heading."""
    heading = ("key id", "organization", "created", "revoked")
    rows = [
        (
            record.key_id,
            record.organization.name,
            _minute(record.create_time),
            _minute(record.revoke_time) if record.revoke_time else "",
        )
        for record in records
    ]
    widths = [max(map(_width, column)) for column in zip(heading, *rows, strict=True)]
    _print_row(heading, widths, [partial(click.style, bold=True)] * len(heading))
    for row in rows:
        _print_row(row, widths, (named, str, str, bad))


def _print_row(cells: Sequence[str], widths: Sequence[int], styles: Sequence[Callable[[str], str]]) -> None:
    padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
    print_result(SEPARATOR.join(style(cell) for cell, style in zip(padded, styles, strict=True)))


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _width(text: str) -> int:
    """The columns that a terminal takes to show the text."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


@keys.command()
@click.option("--organization", required=True, callback=_organization, help="Whose key it is.")
@click.argument("key_id")
def revoke(organization: str, key_id: str) -> None:
    """End the key of that id, for ever. Servers may take it for a few seconds more."""

    async def run(database: Database) -> bool:
        async with database.transaction() as connection:
            owned = {
                record.key_id
                for record in await key_store.list_keys(connection)
                if record.organization.name == organization
            }
            return key_id in owned and await key_store.revoke_key(connection, key_id, SystemClock().now())

    if not _with_database(run):
        raise Problem(
            f"the organization {organization} has no key {key_id}",
            ["`tidemark keys list` shows the ids; they begin with key_, a key itself with tmk_"],
        )
    print_progress(f"{named(key_id)} is revoked")


def _with_database(work: Callable[[Database], Coroutine[None, None, Result]]) -> Result:
    settings = configuration()
    configure_logs(settings)
    url = prepared_database(settings)

    async def run() -> Result:
        database = Database(url, POOL_SIZE)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except DatabaseUnavailable as error:
        raise unreachable(url, error) from None
