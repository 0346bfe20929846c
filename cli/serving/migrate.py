"""The command `tidemark migrate`."""

from itertools import groupby

import click

from cli.console import named, print_result, quiet, warn
from cli.serving.settings import configuration, configure_logs, database_problems, database_url, migrated_database
from runtime.configuration import Configuration
from store.citus.nodes import Node, parse_nodes
from store.migration_effects import Work
from store.migration_plan import Plan, PlannedMigration, Step, plan
from store.postgres.addresses import shown


@click.command()
@click.option("--plan", "only_plan", is_flag=True, help="Show what it would do and lock.")
@click.option("--citus", is_flag=True, help="Distribute the tables over the workers of a Citus cluster.")
@click.option("--nodes", "named_nodes", metavar="HOST:PORT,…", help="With --citus: add these workers to the cluster.")
def migrate(only_plan: bool, citus: bool, named_nodes: str | None) -> None:
    """Migrate the schema of the database to this version.

    Servers and notifiers migrate it themselves when they start, unless TIDEMARK_MIGRATE is `never`. If several
    processes migrate at once, one of them does it and the others wait. A migration that waits for a lock for more
    than 2 seconds gives way to the sessions behind it, and tries again.

    With --citus, each table also moves to its place on the cluster whose coordinator TIDEMARK_DATABASE_URL names. The
    first time, stop all servers and notifiers: the tables are locked while their rows are copied. It can be run again
    at any time, also after it was stopped in the middle. Afterwards the option is not needed any more.
    """
    nodes = _nodes(named_nodes, citus=citus, only_plan=only_plan)
    settings = configuration()
    configure_logs(settings)
    if only_plan:
        _print_plan(settings)
        return
    url, is_current = migrated_database(settings, nodes)
    database = named(shown(url))
    if is_current and nodes is not None:
        print_result(f"the schema of {database} is up to date, and its tables lie in their places on the cluster")
    elif is_current:
        print_result(f"the schema of {database} is up to date")
    else:
        print_result(f"a newer version migrated the schema of {database}; this version can use it unchanged")


def _nodes(named_nodes: str | None, *, citus: bool, only_plan: bool) -> list[Node] | None:
    """The workers to add; None without --citus."""
    if not citus:
        if named_nodes is not None:
            raise click.UsageError("--nodes needs --citus")
        return None
    if only_plan:
        raise click.UsageError("--plan shows migrations only; it cannot be combined with --citus")
    try:
        return [] if named_nodes is None else parse_nodes(named_nodes)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--nodes") from None


def _print_plan(settings: Configuration) -> None:
    url = database_url(settings)
    with database_problems(url):
        found = plan(url)
    database = named(shown(url))
    if found.is_new:
        print_result(f"{database} has no schema; revision {found.head} will be created, and nothing is locked")
        return
    if not found.migrations:
        print_result(f"the schema of {database} is up to date (revision {found.current}); there is nothing to do")
        return
    print_result(f"{database}: revision {found.current} will become {found.head}")
    for migration in found.migrations:
        _print_migration(migration)
    print_result(_conclusion(found))


def _print_migration(migration: PlannedMigration) -> None:
    print_result(f"\n{named(migration.revision)}  {migration.summary}")
    if migration.problem:
        print_result(warn(f"      what it locks is not known: {migration.problem}"))
    elif not migration.steps:
        print_result("      locks no table that servers use")
    for _, steps in groupby(migration.steps, _lock_of):
        first, *others = steps
        print_result(f"      {_described(first)}")
        for step in (first, *others):
            print_result(quiet(f"        {step.effect.statement}"))


def _lock_of(step: Step) -> tuple[object, ...]:
    """What several statements in one transaction have in common when one line describes them all."""
    effect = step.effect
    return step.table, effect.lock, effect.work, effect.statement if effect.concurrent else ""


def _described(step: Step) -> str:
    size = f"{step.size.rows:,} rows, {_bytes(step.size.size)}"
    does = step.effect.work.value
    line = f"{step.table} ({size}): {does}; {step.effect.lock.mode} for {_duration(step.seconds)}; {_servers(step)}"
    return warn(line) if step.seconds >= 1 and step.effect.lock.stops_writes else line


def _servers(step: Step) -> str:
    """What servers do meanwhile."""
    if step.effect.work is Work.UNKNOWN:
        return "servers may wait"
    if step.effect.lock.stops_reads:
        return "reads and writes of it wait"
    return "writes to it wait, reads go on" if step.effect.lock.stops_writes else "servers go on"


def _conclusion(found: Plan) -> str:
    """What becomes of servers of the version before."""
    oldest = found.migrations[-1].oldest_compatible
    assert found.current is not None
    if oldest is not None and oldest <= found.current:
        return (
            "\nServers of the present version run before, during and after it: replace them afterwards, one by one."
        )
    return warn(
        f"\nServers of the present version cannot start on the result, which needs revision {oldest}, and those that"
        " run may fail. Stop them first."
    )


def _duration(seconds: float) -> str:
    if seconds < 0.1:
        return "less than 0.1 s"
    return f"about {seconds:.1f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"


def _bytes(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB" if size < 10**9 else f"{size / 10**9:,.1f} GB"
