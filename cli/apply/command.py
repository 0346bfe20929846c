"""The command `tidemark apply`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from cli.connection.options import server_options
from cli.console import Problem, bad, confirm, good, named, print_progress, print_result, quiet, warn
from cli.sections import SectionCommand

if TYPE_CHECKING:
    from cli.apply.plan import Step
    from cli.client.connection import Address

DEFAULT_OWNER = "default"
CHANGES = 8  # the exit code of --check
MAX_LINES = 40  # of one item
MAX_WARNINGS = 40  # of all items


@click.command(cls=SectionCommand)
@click.option(
    "--file",
    "-f",
    "files",
    multiple=True,
    required=True,
    metavar="FILE|FOLDER|-",
    help="What to apply: a file of YAML or JSON, all files of a folder, or standard input. May be repeated.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--check", is_flag=True, help="As --dry-run, and end with 8 if something would change.")
@click.option(
    "--prune",
    is_flag=True,
    help="Archive alerts, and delete endpoints, that this owner applied before and that the files declare no more;"
    " only of the kinds that the files have.",
)
@click.option(
    "--owner",
    default=DEFAULT_OWNER,
    show_default=True,
    metavar="NAME",
    help="Who applies: the value of the label tidemark.apply, so that several sets of files do not prune each other.",
)
@click.option("--adopt", is_flag=True, help="Take over what another owner, or no owner, has applied.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before --prune removes something.")
@server_options
def apply(
    files: tuple[str, ...],
    dry_run: bool,
    check: bool,
    prune: bool,
    owner: str,
    adopt: bool,
    yes: bool,
    address: Address,
) -> None:
    """Create and change alerts and others as files declare them.

    A file has lists of metrics, plans, limits, recharge_policies, alerts and endpoints, as `tidemark export` prints
    them. An alert is found by its uniqueness_key, an endpoint by its display_name, all others by their ids. What is
    equal already stays untouched: a second run changes nothing. An item that the server refuses does not stop the
    others; the command then ends with 1.
    """
    import grpc

    from cli.apply.files import read_all
    from cli.apply.plan import Action, Planner
    from cli.connection.channels import caller
    from cli.connection.problems import as_failed, problem_of

    declared, kinds = read_all(files)
    with caller(address) as server:
        planner = Planner(server, owner, adopt)
        try:
            steps = planner.plan(declared, kinds, prune=prune)
        except grpc.RpcError as error:
            raise problem_of(as_failed(error), address) from None
        for step in steps:
            _show(step)
        if not (dry_run or check):
            removed = [step for step in steps if step.action is Action.REMOVE]
            if removed:
                confirm(f"removes {_number(len(removed), 'item')} for good", yes=yes)
            todo = [step for step in steps if step.action in (Action.CREATE, Action.CHANGE, Action.REMOVE)]
            done = planner.carry_out(todo)
            for after in done:
                _report(after)
            steps = [*(step for step in steps if step.action in (Action.SAME, Action.FAIL)), *done]
    _warn(steps, {one.key for one in declared} if dry_run or check else set())
    _summarize(steps, dry_run=dry_run or check)
    if any(step.action is Action.FAIL for step in steps):
        raise SystemExit(1)
    if check and any(step.action is not Action.SAME for step in steps):
        raise SystemExit(CHANGES)


def _show(step: Step) -> None:
    """Prints what will happen to an item; nothing about one that stays as it is."""
    from cli.apply.plan import Action

    if step.action is Action.SAME:
        return
    style = _styles()[step.action.value]
    what = {"-": f"  ({step.kind.removal})"}.get(step.action.value, "")
    place = f"  {quiet(step.place)}" if step.place else ""
    print_result(f"{style(step.action.value)} {step.kind.one} {named(step.key)}{what}{place}")
    if step.problem is not None:
        _show_problem(step.problem)
    mark = "+ " if step.action is Action.CREATE else ""
    for line in step.lines[:MAX_LINES]:
        print_result(f"    {style(mark) if mark else ''}{line}")
    if len(step.lines) > MAX_LINES:
        print_result(quiet(f"    … and {len(step.lines) - MAX_LINES} more lines"))


def _show_problem(problem: Problem) -> None:
    print_result(f"    {bad(problem.message)}")
    for hint in problem.hints:
        print_result(f"    {quiet(hint)}")


def _styles() -> dict[str, Callable[[str], str]]:
    return {"+": good, "~": warn, "-": bad, "!": bad}


def _report(step: Step) -> None:
    """Prints what went wrong with an item, and the secret of a new endpoint."""
    if step.problem is not None:
        print_result(f"{bad('!')} {step.kind.one} {named(step.key)}")
        _show_problem(step.problem)
    if step.secret:
        print_progress(f"the signing secret of {step.kind.one} {named(step.key)}, shown only this once:")
        print_result(f"secret {step.secret}")


def _warn(steps: Sequence[Step], coming: set[str]) -> None:
    """Prints the warnings of the server. coming: keys that a dry run would have created by then."""
    found = [
        f"{step.kind.one} {step.key}: {warning.message or warning.field}"
        for step in steps
        for warning in step.warnings
        if warning.unknown_id not in coming
    ]
    for line in found[:MAX_WARNINGS]:
        print_progress(f"{warn('warning')} {line}")
    if len(found) > MAX_WARNINGS:
        print_progress(quiet(f"… and {len(found) - MAX_WARNINGS:,} more warnings"))


def _summarize(steps: Sequence[Step], *, dry_run: bool) -> None:
    from cli.apply.plan import Action

    counts: Counter[Any] = Counter(step.action for step in steps)
    words = {
        Action.CREATE: "to create" if dry_run else "created",
        Action.CHANGE: "to change" if dry_run else "changed",
        Action.REMOVE: "to remove" if dry_run else "removed",
        Action.SAME: "unchanged",
        Action.FAIL: "failed",
    }
    if all(action is Action.SAME for action in counts):
        print_progress(f"no changes ({_number(counts[Action.SAME], 'item')})")
    else:
        print_progress(", ".join(f"{counts[action]:,} {word}" for action, word in words.items() if counts[action]))
    loose = sum(1 for step in steps if step.action is Action.SAME and not step.is_owned)
    if loose:
        print_progress(
            quiet(f"{_number(loose, 'item')} of another owner, or of none, which --prune keeps; --adopt takes over")
        )


def _number(count: int, one: str) -> str:
    return f"{count:,} {one}{'' if count == 1 else 's'}"
