"""The commands `tidemark keys …`: API keys of organizations."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import click

from cli.console import Problem, confirm, named, print_progress, warn
from cli.organizations.audit import KeyAudit
from cli.organizations.key_options import DURATION, check_customer, limits, settings
from cli.organizations.key_table import print_table
from cli.serving.settings import configuration, configure_logs, prepared_database, unreachable_database
from runtime.clock import SystemClock
from store.identity import keys as key_store
from store.identity.key_changes import RotatedKey, rotate_key, update_key
from store.identity.keys import MAX_NAME_LENGTH, KeySettings
from store.postgres.database import Database, DatabaseUnavailable

Result = TypeVar("Result")

DEFAULT_OVERLAP = "24h"
MAX_IDENTITY = 2_048  # characters; SPIFFE ids have at most so many bytes
POOL_SIZE = 1  # connections


@click.group()
def keys() -> None:
    """Create, list, change, rotate and revoke API keys.

    A key identifies an organization. As long as no key was ever created, a server listens on loopback only, and every
    caller belongs to the organization `default`. After the first key is created, callers need one.
    """


def _organization(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not 1 <= len(value) <= MAX_NAME_LENGTH or value != value.strip() or not value.isprintable():
        raise click.BadParameter(
            f"write 1 to {MAX_NAME_LENGTH} printable characters, without a blank at the start or the end"
        )
    return value


def _identity(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    if value is None:
        return ""
    if not 1 <= len(value) <= MAX_IDENTITY or not value.isprintable() or " " in value:
        raise click.BadParameter(f"write a URI or a DNS name of at most {MAX_IDENTITY} characters")
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
@click.option(
    "--identity",
    callback=_identity,
    help="SPIFFE id, other URI or DNS name of a client certificate, which then needs no key.",
)
@limits
def create(
    organization: str,
    take_over: bool | None,
    identity: str,
    roles: tuple[str, ...],
    customer: str | None,
    display_name: str | None,
    expires_in: timedelta | None,
) -> None:
    """Create a key and print it, only this once."""

    limited = KeySettings(**settings(roles, customer, display_name))
    check_customer(limited.roles, limited.customer_id)
    if take_over is None and sys.stdin.isatty() and sys.stderr.isatty():
        take_over = _ask_for_take_over(organization)

    async def run(database: Database) -> key_store.CreatedKey:
        async with database.transaction() as connection:
            now = SystemClock().now()
            of_key = limited if expires_in is None else replace(limited, expire_time=now + expires_in)
            made = await key_store.create_key(
                connection, organization, now, of_key, identity=identity, take_over=bool(take_over)
            )
            await KeyAudit(connection, organization, "create").record(made.key_id, None, now)
            return made

    try:
        created = _with_database(run)
    except key_store.IdentityTaken as error:
        raise Problem(str(error), ["`tidemark keys list` shows the identities"]) from None
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
    if identity:
        print_progress(
            f"{named(identity)} calls for the organization {named(organization)} now, as {named(created.key_id)}"
        )
    else:
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
    """List all keys with their roles and times, also revoked ones. The keys themselves are not stored."""

    async def run(database: Database) -> list[key_store.KeyRecord]:
        async with database.transaction() as connection:
            return await key_store.list_keys(connection)

    records = [record for record in _with_database(run) if organization in (None, record.organization.name)]
    if records:
        print_table(records)
    else:
        print_progress("there are no keys")


@keys.command()
@click.option("--organization", required=True, callback=_organization, help="Organization of the key.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.argument("key_id")
def revoke(organization: str, key_id: str, yes: bool) -> None:
    """Revoke the key with this id, for good. Servers may accept it for a few seconds more."""
    confirm(f"revokes the key {key_id} of {organization} for good: every caller that uses it is refused", yes=yes)

    async def run(database: Database) -> bool:
        async with database.transaction() as connection:
            audit, now = KeyAudit(connection, organization, "revoke"), SystemClock().now()
            before = await audit.before(key_id)
            if before is None:
                return False
            revoked = await key_store.revoke_key(connection, key_id, now)
            await audit.record(key_id, before, now)
            return revoked

    if not _with_database(run):
        raise Problem(
            f"the organization {organization} has no key {key_id}",
            ["`tidemark keys list` shows the ids; an id begins with key_, a key with tmk_"],
        )
    print_progress(f"{named(key_id)} is revoked")


@keys.command()
@click.option("--organization", required=True, callback=_organization, help="Organization of the key.")
@limits
@click.argument("key_id")
def update(
    organization: str,
    key_id: str,
    roles: tuple[str, ...],
    customer: str | None,
    display_name: str | None,
    expires_in: timedelta | None,
) -> None:
    """Change what the key with this id may be used for. Open streams that it allows no more end within 5 seconds."""

    changes = dict(settings(roles, customer, display_name))
    if not changes and expires_in is None:
        raise click.UsageError("nothing to change: give at least one of the options")

    async def run(database: Database) -> KeySettings | None:
        async with database.transaction() as connection:
            audit, now = KeyAudit(connection, organization, "update"), SystemClock().now()
            if expires_in is not None:
                changes["expire_time"] = now + expires_in
            before = await audit.before(key_id)
            after = await update_key(connection, organization, key_id, changes)
            if after is not None:
                check_customer(after.roles, after.customer_id)  # within the transaction, which it rolls back
                await audit.record(key_id, before, now)
            return after

    after = _with_database(run)
    if after is None:
        raise _no_such_key(organization, key_id)
    allowed = ", ".join(sorted(after.roles)).lower()
    customer_id = f" of the customer {after.customer_id}" if after.customer_id else ""
    end = "" if after.expire_time is None else f", until {after.expire_time:%Y-%m-%d %H:%M} UTC"
    print_progress(f"{named(key_id)} has the roles {allowed}{customer_id} now{end}")


@keys.command()
@click.option("--organization", required=True, callback=_organization, help="Organization of the key.")
@click.option(
    "--overlap",
    type=DURATION,
    default=DEFAULT_OVERLAP,
    show_default=True,
    help="How long the old key is still accepted, so that callers can be given the new one.",
)
@click.argument("key_id")
def rotate(organization: str, overlap: timedelta, key_id: str) -> None:
    """Create a successor of the key with this id, print it, only this once, and have the old key expire."""

    async def run(database: Database) -> RotatedKey | None:
        async with database.transaction() as connection:
            audit, now = KeyAudit(connection, organization, "rotate"), SystemClock().now()
            before = await audit.before(key_id)
            rotated = await rotate_key(connection, organization, key_id, now, overlap)
            if rotated is not None:
                await audit.record(rotated.key_id, None, now)
                await audit.record(key_id, before, now)
            return rotated

    rotated = _with_database(run)
    if rotated is None:
        raise _no_such_key(organization, key_id)
    print_progress(
        f"key {named(rotated.key_id)} replaces {named(key_id)}, which is accepted until"
        f" {rotated.predecessor_expire_time:%Y-%m-%d %H:%M} UTC"
    )
    if (end := rotated.settings.expire_time) is not None:
        print_progress(
            f"{warn('note')} {named(rotated.key_id)} expires, too: at {end:%Y-%m-%d %H:%M} UTC."
            "\n     To change that: "
            + named(f"tidemark keys update {rotated.key_id} --organization NAME --expires-in 365d")
        )
    click.echo(rotated.key)


def _no_such_key(organization: str, key_id: str) -> Problem:
    return Problem(
        f"the organization {organization} has no key {key_id} that is accepted",
        ["`tidemark keys list` shows the ids; an id begins with key_, a key with tmk_"],
    )


def _with_database(work: Callable[[Database], Coroutine[None, None, Result]]) -> Result:
    configured = configuration()
    configure_logs(configured)
    url = prepared_database(configured)

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
