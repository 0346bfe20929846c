"""What a command prints about the answer of its RPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.console import Problem, good, named, print_progress, print_result, quiet, warn
from cli.resources import contract
from cli.resources.printing import Format

if TYPE_CHECKING:
    from cli.resources.execution import Run


def show_answer(run: Run, request: Any, answer: Any) -> None:
    """Prints the answer: for programs as it is, an answer with one field as that field; for people what was done."""
    field = contract.items_field(answer.DESCRIPTOR, run.verb.item)
    only = len(answer.DESCRIPTOR.fields) == 1 and field is not None and not field.is_repeated
    item = getattr(answer, field.name) if field is not None else None
    if run.printer.format is not Format.PEOPLE:
        run.printer.program(item if only else answer, inline=False)
        return
    if run.verb.name == "get":
        others = [each for each, _ in answer.ListFields() if field is None or each.name != field.name]
        run.printer.one(answer if others or item is None else item)
        return
    _report(run, request, answer, item if field is not None and not field.is_repeated else None)
    if field is not None and field.is_repeated and field.message_type is not None:
        columns = run.verb.columns or run.resource.columns
        if item:
            run.printer.rows(columns, item)
    elif field is not None and not field.is_repeated and answer.HasField(field.name):
        run.printer.rows(run.verb.columns or run.resource.columns, [item])
    elif answer.ListFields():
        run.printer.one(answer)
    _refuse_rejected(item)
    if "secret" in answer.DESCRIPTOR.fields_by_name and answer.secret:
        print_progress("the signing secret is shown only this once:")
        print_result(f"secret {answer.secret}")


def _refuse_rejected(item: Any) -> None:
    """Raises Problem when usage events were rejected; the others count."""
    rejected = getattr(item, "rejected", ())
    if rejected:
        raise Problem(
            f"{len(rejected)} of the events {'is' if len(rejected) == 1 else 'are'} rejected",
            [f"{one.event_id or f'event {one.index}'}: {one.status.message}" for one in rejected[:20]],
        )


def _report(run: Run, request: Any, answer: Any, item: Any) -> None:
    names = answer.DESCRIPTOR.fields_by_name
    if request.DESCRIPTOR.fields_by_name.get("validate_only") is not None and request.validate_only:
        print_progress(f"{quiet('dry run')} the request is valid; nothing is changed")
    elif "superseded" in names and answer.superseded:
        print_progress(
            f"{warn('note')} nothing is changed: a newer state is stored; see as_of_time, and --as-of-time"
        )
    elif "replayed" in names and answer.replayed:
        print_progress(f"{quiet('again')} an earlier request did this; nothing is changed")
    elif run.verb.done:
        ids = _ids(run, request, item)
        print_progress(f"{good(run.verb.done)} {run.resource.one}{f' {named(ids)}' if ids else ''}")
    for warning in getattr(answer, "warnings", ()):
        print_progress(f"{warn('warning')} {warning.message or warning.field}")


def _ids(run: Run, request: Any, item: Any) -> str:
    found = []
    for name in run.resource.ids:
        for message in (item, request, getattr(request, run.whole, None) if run.whole else None):
            if message is not None and name in message.DESCRIPTOR.fields_by_name and getattr(message, name):
                found.append(str(getattr(message, name)))
                break
    return " ".join(found)
