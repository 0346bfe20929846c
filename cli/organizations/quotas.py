"""The commands `tidemark quotas …`: the quotas of organizations. Only the operator has them, see docs/security.md."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

import click

from cli.console import Problem, named, print_progress, print_result
from cli.organizations.audit import record_quotas
from cli.serving.settings import configuration, configure_logs, prepared_database, unreachable_database
from runtime.configuration import Configuration
from runtime.quotas import MAX_QUOTA, QuotaKind, Quotas
from store.identity import organizations
from store.identity import quotas as stored
from store.postgres.database import Database, DatabaseUnavailable

Result = TypeVar("Result")

POOL_SIZE = 1  # connections
DEFAULT, NONE = "default", "none"


@click.group()
def quotas() -> None:
    """Show and set the quotas of organizations.

    A quota limits what one organization may have, or do in a second, on all servers together. TIDEMARK_QUOTA_… sets
    those of organizations that have none of their own.
    """


_KINDS = ", ".join(QuotaKind)


@quotas.command()
@click.option("--organization", required=True, help="The organization.")
def show(organization: str) -> None:
    """Show the quotas of an organization: its own ones, and the defaults of this machine's configuration."""

    async def run(database: Database, organization_id: int) -> Quotas:
        async with database.transaction() as connection:
            return await stored.own(connection, organization_id)

    settings, own = _with_organization(organization, run)
    _print(settings, own)


@quotas.command(name="set")
@click.option("--organization", required=True, help="The organization.")
@click.argument("values", metavar="KIND=VALUE…", nargs=-1, required=True)
def set_(organization: str, values: tuple[str, ...]) -> None:
    """Set quotas of an organization. Servers follow within a few seconds.

    KIND is alerts, endpoints, streams, watchers, events_per_second or bytes_per_second. VALUE is a number, `none` for
    no quota, or `default` for that of the servers' configuration.
    """
    limits, defaults = _read(values)

    async def run(database: Database, organization_id: int) -> Quotas:
        async with database.transaction() as connection:
            before = await stored.change(connection, organization_id, {})  # locks them
            after = await stored.change(connection, organization_id, limits, defaults)
            await record_quotas(connection, organization_id, before, after)
            return after

    settings, own = _with_organization(organization, run)
    _print(settings, own)
    print_progress(f"the quotas of {named(organization)} are set")


def _read(values: tuple[str, ...]) -> tuple[dict[QuotaKind, int | None], list[QuotaKind]]:
    """The quotas to set, and those to remove."""
    limits: dict[QuotaKind, int | None] = {}
    defaults: list[QuotaKind] = []
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or name not in list(QuotaKind):
            raise click.BadParameter(f"{text!r}: write KIND=VALUE, with one of the kinds {_KINDS}")
        kind = QuotaKind(name)
        if kind in limits or kind in defaults:
            raise click.BadParameter(f"{name} is given twice")
        if value == DEFAULT:
            defaults.append(kind)
        elif value == NONE:
            limits[kind] = None
        elif value.isascii() and value.isdecimal() and int(value) <= MAX_QUOTA:
            limits[kind] = int(value)
        else:
            raise click.BadParameter(f"{text!r}: write a number up to {MAX_QUOTA}, `none` or `default`")
    return limits, defaults


def _print(settings: Configuration, own: Quotas) -> None:
    for kind in QuotaKind:
        limit = own.get(kind, settings.quotas.get(kind))
        source = "own" if kind in own else "default"
        print_result(f"{kind.value:<20}{'none' if limit is None else limit:>16}   {source}")


def _with_organization(
    name: str, work: Callable[[Database, int], Coroutine[None, None, Result]]
) -> tuple[Configuration, Result]:
    """Does the work for the organization of that name; returns the configuration, and the result."""
    settings = configuration()
    configure_logs(settings)
    url = prepared_database(settings)

    async def run() -> Result:
        database = Database(url, POOL_SIZE)
        try:
            async with database.transaction() as connection:
                organization_id = await organizations.find(connection, name)
            if organization_id is None:
                raise Problem(
                    f"there is no organization {name}",
                    ["`tidemark keys list` shows organizations; the first key of one creates it"],
                )
            return await work(database, organization_id)
        finally:
            await database.close()

    try:
        return settings, asyncio.run(run())
    except DatabaseUnavailable as error:
        raise unreachable_database(url, error) from None
