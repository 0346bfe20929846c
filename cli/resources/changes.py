"""Updates of the command line: the given fields change, and all others stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import grpc

from cli.connection.problems import as_failed
from cli.resources import contract
from cli.resources.documents import strip
from cli.resources.fields import leaves
from cli.resources.requests import put_options

if TYPE_CHECKING:
    from cli.connection.channels import Caller
    from cli.resources.execution import Run


def read(run: Run, server: Caller, request: Any) -> Any | None:
    """The resource that a request names, as it is now; None if it does not exist."""
    method = contract.method(run.resource.get)
    wanted = contract.new(method.input_type)
    for name in run.resource.ids:
        setattr(wanted, name, getattr(getattr(request, run.whole), name))
    try:
        return getattr(server.call(method, wanted), run.resource.field)
    except grpc.RpcError as error:
        if as_failed(error).code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise


def prepare_update(run: Run, server: Caller, request: Any) -> None:
    """Puts the change that the command line gives into the request. Raises grpc.RpcError and click.UsageError.

    An RPC with an update_mask gets the changed fields. A put gets the resource as it is now, with the changes. Pairs
    of maps, such as labels, are added to those that are there, or replace them.
    """
    is_put = "update_mask" not in run.method.input_type.fields_by_name
    cleared = list(run.params.get("clear") or ())
    target = getattr(request, run.whole)
    changed = _changed(run, target, cleared)
    if not changed and not run.params.get("file"):
        raise click.UsageError(
            "nothing to change: give at least one of the options of fields, or --file", run.context
        )
    if is_put or any(contract.is_map(option.leaf.field) for option, _ in run.options):
        _merge_present(run, server, request, is_put=is_put)
    put_options(request, run.options)
    for name in cleared:
        _clear(target, name)
    if not is_put and changed and not run.params.get("file"):
        request.update_mask.paths.extend(sorted(set(changed)))
    elif not is_put and cleared:
        request.update_mask.paths.extend(
            sorted({*changed, *(field.name for field, _ in target.ListFields() if _may_change(field, run))})
        )


def _may_change(field: Any, run: Run) -> bool:
    return field.name not in (*run.resource.ids, "etag", "scope", "uniqueness_key") and not field.containing_oneof


def _changed(run: Run, target: Any, cleared: list[str]) -> list[str]:
    """The fields of the resource that the command line changes. Raises click.BadParameter."""
    known = {leaf.key.removeprefix(f"{run.whole}."): leaf for leaf in leaves(target.DESCRIPTOR)}
    for name in cleared:
        top = name.partition(".")[0]
        if top not in target.DESCRIPTOR.fields_by_name or top in run.resource.ids:
            fields = sorted({key.partition(".")[0] for key in known} - set(run.resource.ids))
            raise click.BadParameter(f"{name!r} is no field: it has {', '.join(fields)}", param_hint="--clear")
    of_resource = [option.leaf.path[1].name for option, _ in run.options if option.leaf.path[0].name == run.whole]
    return [*of_resource, *(name for name in cleared)]


def _clear(target: Any, path: str) -> None:
    *outer, last = path.split(".")
    for step in outer:
        target = getattr(target, step)
    target.ClearField(last)


def _merge_present(run: Run, server: Caller, request: Any, *, is_put: bool) -> None:
    """Puts the resource as it is now below what the file of the command says."""
    present = read(run, server, request)
    target = getattr(request, run.whole)
    if present is None:
        if is_put:
            # The answer of the server names what is missing, in the words of all other errors.
            method = contract.method(run.resource.get)
            wanted = contract.new(method.input_type)
            for name in run.resource.ids:
                setattr(wanted, name, getattr(target, name))
            server.call(method, wanted)
        return
    if is_put:
        strip(present, run.resource.ids)
        present.ClearField("as_of_time")
        given = type(target)()
        given.CopyFrom(target)
        target.CopyFrom(present)
        for field, _ in given.ListFields():
            target.ClearField(field.name)
        target.MergeFrom(given)
        return
    for option, _ in run.options:
        field = option.leaf.field
        if contract.is_map(field) and not getattr(target, field.name):
            getattr(target, field.name).update(getattr(present, field.name))
    if "etag" in target.DESCRIPTOR.fields_by_name and not target.etag:
        target.etag = present.etag
