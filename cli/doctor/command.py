"""The command `tidemark doctor`."""

import asyncio
import json
from collections.abc import Sequence

import click

from cli.client.connection import Address
from cli.connection.options import server_options
from cli.console import Problem, bad, good, named, print_progress, print_result, quiet, warn
from cli.doctor.checks import CHECKS, CONNECTION
from cli.doctor.examination import CheckResult, exit_code, run_checks
from cli.doctor.findings import Examined, Severity, ok, problem
from cli.serving.settings import configuration, configure_logs, database_url
from runtime.clock import SystemClock
from runtime.configuration import Configuration
from store.diagnosis.session import opened
from store.postgres.addresses import shown
from store.postgres.database import DatabaseUnavailable

_MARKS = {
    Severity.OK: good("ok      "),
    Severity.HINT: quiet("hint    "),
    Severity.NOT_CHECKED: warn("unknown "),
    Severity.WARNING: warn("warning "),
    Severity.PROBLEM: bad("problem "),
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print an array of JSON objects, one for each finding.")
@click.option("--all", "show_all", is_flag=True, help="Print also what is in order.")
@server_options
@click.pass_context
def doctor(context: click.Context, as_json: bool, show_all: bool, address: Address) -> None:
    """Say what is wrong with the database, the servers and the webhooks, and what to do.

    It reads statistics and the first rows of indexes, writes nothing, and takes at most about ten seconds. The exit
    code is 0 if all is in order or there are only hints, 1 for warnings and checks that could not be done, and 2 for
    problems. Settings are those of servers and notifiers. A server is asked only if --server or TIDEMARK_SERVER names
    it.
    """
    settings = configuration()
    configure_logs(settings)
    source = context.get_parameter_source("server")
    is_named = source in (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.ENVIRONMENT)
    results = asyncio.run(_examine(settings, address if is_named else None))
    if as_json:
        print_result(json.dumps(_as_json(results), ensure_ascii=False, indent=1))
    else:
        _print(results, show_all=show_all)
    raise click.exceptions.Exit(exit_code(results))


async def _examine(settings: Configuration, address: Address | None) -> list[CheckResult]:
    is_embedded = settings.database_url is None
    title = "a connection to the database"
    try:
        if is_embedded and not settings.data_directory.exists():
            raise Problem(f"there is no embedded database under {settings.data_directory}")
        url = database_url(settings)
        async with opened(url) as connection:
            found = ok(f"connected to {shown(url)}")
            examined = Examined(settings, url, connection, SystemClock().now, is_embedded, address)
            results = await run_checks(examined, CHECKS)
    except (DatabaseUnavailable, Problem) as error:
        message = error.message if isinstance(error, Problem) else str(error).partition("\n")[0]
        todo = "check TIDEMARK_DATABASE_URL, and that the server runs and accepts connections from this machine"
        finding = problem(f"the database cannot be used: {message}", "nothing works without it", todo)
        return [CheckResult(CONNECTION, title, [finding])]
    return [CheckResult(CONNECTION, title, [found]), *results]


def _as_json(results: Sequence[CheckResult]) -> list[dict[str, str]]:
    return [
        {
            "check": result.check_id,
            "severity": one.severity.value,
            "found": one.found,
            "why": one.why,
            "todo": one.todo,
        }
        for result in results
        for one in result.findings
    ]


def _print(results: Sequence[CheckResult], *, show_all: bool) -> None:
    """Prints the findings that need attention, the worst first; with `show_all` also the others."""
    order = list(Severity)
    found = [(one, result) for result in results for one in result.findings]
    for one, result in sorted(found, key=lambda each: -order.index(each[0].severity)):
        if one.severity is Severity.OK and not show_all:
            continue
        print_result(f"{_MARKS[one.severity]}{named(result.check_id)}  {one.found}")
        if one.why:
            print_result(f"        {quiet('because')} {one.why}")
        if one.todo:
            print_result(f"        {quiet('do')} {one.todo}")
    counts = {severity: sum(one.severity is severity for one, _ in found) for severity in Severity}
    print_progress(
        f"{_number(counts[Severity.PROBLEM], 'problem')}, {_number(counts[Severity.WARNING], 'warning')},"
        f" {_number(counts[Severity.HINT], 'hint')}, {counts[Severity.NOT_CHECKED]} not checked,"
        f" {counts[Severity.OK]} in order"
    )


def _number(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
