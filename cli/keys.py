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
from cli.settings import configuration, configure_logs, prepared_database, unreachable_database
from runtime.clock import SystemClock
from store.identity import keys as key_store
from store.identity.keys import MAX_NAME_LENGTH
from store.postgres.database import Database, DatabaseUnavailable

Result = TypeVar("Result")

SEPARATOR = "   "  # between two columns of the table
POOL_SIZE = 1  # connections


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    A key identifies an organization. As long as no key was ever created, a server listens on loopback only, and every
    caller belongs to the organization `default`. After the first key is created, callers need one.
    """


def _organization(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not 1 <= len(value) <= MAX_NAME_LENGTH or value != value.strip() or not value.isprintable():
        raise click.BadParameter(
            f"write 1 to {MAX_NAME_LENGTH} printable characters, without a blank at the start or the end"
        )
    return value


@keys.command()
@click.option(
    "--organization",
    required=True,
    callback=_organization,
    help="Organization of the key. It is created if it does not exist.",
)
@click.option(
    "--take-over/--no-take-over",
    default=None,
    help="Rename `default`, which contains the data that was written without a key, to this organization."
    " Without either option, the command asks on a terminal, and renames nothing otherwise.",
)
def create(organization: str, take_over: bool | None) -> None:
    """Create a key and print it, only this once."""

    if take_over is None and sys.stdin.isatty() and sys.stderr.isatty():
        take_over = _ask_for_take_over(organization)

    async def run(database: Database) -> key_store.CreatedKey:
        async with database.transaction() as connection:
            return await key_store.create_key(
                connection, organization, SystemClock().now(), take_over=bool(take_over)
            )

    try:
        created = _with_database(run)
    except key_store.CannotTakeOver as error:
        raise Problem(
            str(error),
            [
                "take `default` over with the name of an organization that does not exist yet",
                "or create a key for `default`: tidemark keys create --organization default",
            ],
        ) from None
    if created.took_over:
        print_progress(
            f"the organization {named('default')} is called {named(organization)} now; its data is unchanged"
        )
    elif take_over:
        print_progress(f"there is nothing to take over: the organization {named('default')} has no data")
    _print_key(created, organization)


def _ask_for_take_over(organization: str) -> bool | None:
    """Asks whether to rename `default`, if the first key would leave its data behind; None if it would not."""

    async def leaves_behind(database: Database) -> bool:
        async with database.transaction() as connection:
            return await key_store.leaves_behind(connection, organization)

    if not _with_database(leaves_behind):
        return None
    return click.confirm(
        "Callers without a key stored data in the organization `default`. With the first key they are refused."
        f"\nRename `default` to {organization}, so that this key can read that data?",
        default=None,
        err=True,
    )


def _print_key(created: key_store.CreatedKey, organization: str) -> None:
    """Prints the key on standard output, and its use on standard error."""
    print_progress(
        f"key {named(created.key_id)} of the organization {named(organization)}."
        " It is shown only this once; the database stores its hash.\n"
        f"Callers send it as the metadata {named('authorization: Bearer KEY')};"
        " the client commands read it from TIDEMARK_KEY."
    )
    if created.left_behind:
        print_progress(
            f"{warn('note')} This is the first key: callers without a key are refused from now on. Their data stays"
            f" in the organization {named('default')}, which the key of {organization} cannot read.\n"
            f"     To read it, create a key: {named('tidemark keys create --organization default')}.\n"
            "     To rename the organization with its data, to a name that does not exist yet:"
            f" {named('tidemark keys create --organization NAME --take-over')}."
        )
    click.echo(created.key)


@keys.command(name="list")
@click.option("--organization", help="Only keys of this organization.")
def list_keys(organization: str | None) -> None:
    """List the ids and organizations of all keys, also of revoked ones. The keys themselves are not stored."""

    async def run(database: Database) -> list[key_store.KeyRecord]:
        async with database.transaction() as connection:
            return await key_store.list_keys(connection)

    records = [record for record in _with_database(run) if organization in (None, record.organization.name)]
    if records:
        print_table(records)
    else:
        print_progress("there are no keys")


def print_table(records: Sequence[key_store.KeyRecord]) -> None:
    """Prints a row for each key on standard output, below a heading."""
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
    """The width of the text on a terminal, in columns."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


@keys.command()
@click.option("--organization", required=True, callback=_organization, help="Organization of the key.")
@click.argument("key_id")
def revoke(organization: str, key_id: str) -> None:
    """Revoke the key with this id, for good. Servers may accept it for a few seconds more."""

    async def run(database: Database) -> bool:
        async with database.transaction() as connection:
            own_ids = {
                record.key_id
                for record in await key_store.list_keys(connection)
                if record.organization.name == organization
            }
            return key_id in own_ids and await key_store.revoke_key(connection, key_id, SystemClock().now())

    if not _with_database(run):
        raise Problem(
            f"the organization {organization} has no key {key_id}",
            ["`tidemark keys list` shows the ids; an id begins with key_, a key with tmk_"],
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
        raise unreachable_database(url, error) from None
