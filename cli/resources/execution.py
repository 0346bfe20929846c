"""Runs a command of the table: makes its request, asks before what cannot be undone, calls, and prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import grpc
from google.protobuf.descriptor import MethodDescriptor

from cli.connection.channels import Caller, caller
from cli.connection.options import address_in
from cli.connection.problems import Conflict, as_failed, problem_of
from cli.console import confirm
from cli.resources import changes, contract
from cli.resources.answers import show_answer
from cli.resources.commands import arguments_of, listed
from cli.resources.completion import name_of_argument
from cli.resources.documents import strip
from cli.resources.fields import FieldOption
from cli.resources.lists import Listing
from cli.resources.printing import Printer, printer_of
from cli.resources.references import warn_of_unknown_plan
from cli.resources.requests import given, metavar_of, put_arguments, put_options, read_file
from cli.resources.streams import Following
from cli.resources.tables.model import Resource, Verb


@dataclass
class Run:
    """One call of a command: its resource and verb, what the command line gives, and its output."""

    context: click.Context
    resource: Resource
    verb: Verb
    method: MethodDescriptor
    options: list[tuple[FieldOption, Any]]
    printer: Printer

    @property
    def params(self) -> dict[str, Any]:
        """The values of the parameters."""
        return self.context.params

    @property
    def whole(self) -> str:
        """The field of the request with the resource; empty if there is none."""
        return self.resource.field if self.resource.field in self.method.input_type.fields_by_name else ""

    def request(self) -> Any:
        """The request of the arguments, the file and the options. Raises Problem and click.UsageError."""
        request = contract.new(self.method.input_type)
        paths = arguments_of(self.resource, self.verb, self.method, is_list=listed(self.method, self.verb))
        file = self.params.get("file")
        if file:
            target = getattr(request, self.whole) if self.whole else request
            target.SetInParent()
            read_file(file, target)
            if self.whole:
                keep = ("etag", *self.resource.ids) if self.verb.name == "update" else self.resource.ids
                strip(target, keep)
        missing = put_arguments(request, paths, {path: self.params.get(name_of_argument(path)) for path in paths})
        if missing:
            names = " ".join(metavar_of(path) for path in paths)
            raise click.UsageError(
                f"{metavar_of(missing[0])} is missing: write tidemark {self.resource.name} {self.verb.name} {names}",
                self.context,
            )
        if not (self.whole and self.verb.name == "update"):
            put_options(request, self.options)
        if self.params.get("page_token"):
            request.page_token = self.params["page_token"]
        if self.params.get("dry_run"):
            request.validate_only = True
        return request


def execute(context: click.Context, resource: Resource, verb: Verb) -> None:
    """Runs a command. Raises Problem and click.UsageError."""
    printer = printer_of(dict(context.params))
    method = contract.method(verb.method)
    run = Run(context, resource, verb, method, given(context, context.command.params), printer)
    request = run.request()
    address = address_in(context)
    if verb.irreversible and not context.params["dry_run" if "dry_run" in context.params else "yes"]:
        confirm(verb.irreversible.format_map(_Values(request)), yes=context.params["yes"])
    with caller(address) as server:
        try:
            _perform(run, server, request)
        except grpc.RpcError as error:
            raise problem_of(as_failed(error), address) from None


def _perform(run: Run, server: Caller, request: Any) -> None:
    resource, verb, method = run.resource, run.verb, run.method
    columns = verb.columns or resource.columns
    limit = run.params.get("limit")
    if method.server_streaming:
        Following(server, method, request, verb.item, columns, run.printer).run(limit or None)
        return
    if listed(method, verb):
        items = contract.items_field(method.output_type, verb.item)
        assert items is not None
        listing = Listing(
            server, method, request, items.name, _plural(resource, items.name), columns, run.printer, resource.ids
        )
        if run.params.get("count"):
            listing.count()
        elif run.params["watch"]:
            listing.watch(limit, run.params["interval"])
        else:
            listing.show(limit)
        return
    if run.whole and verb.name == "update":
        changes.prepare_update(run, server, request)
    elif run.whole and verb.name == "create" and resource.put:
        _refuse_existing(run, server, request)
    show_answer(run, request, server.call(method, request))
    warn_of_unknown_plan(run, server, request)


def _plural(resource: Resource, items: str) -> str:
    words = items.replace("_", " ")
    return words if words else resource.name


def _refuse_existing(run: Run, server: Caller, request: Any) -> None:
    """Raises Problem when the resource exists. A balance is refused by the server itself."""
    if "only_if_new" in run.method.input_type.fields_by_name:
        request.only_if_new = True
        return
    if changes.read(run, server, request) is not None:
        raise Conflict(
            f"this {run.resource.one} exists already",
            [
                f"change it: tidemark {run.resource.name} update {ids_of(run.resource, getattr(request, run.whole))}",
                f"replace it as a whole: tidemark {run.resource.name} put …",
            ],
        )


def ids_of(resource: Resource, message: Any) -> str:
    """The ids of a resource, as the command line takes them."""
    return " ".join(str(getattr(message, name)) for name in resource.ids)


class _Values(dict[str, Any]):
    """The fields of a request, by name, for the text of a question."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self._request = request

    def __missing__(self, key: str) -> str:
        return str(getattr(self._request, key, ""))


__all__: Sequence[str] = ("Run", "execute", "ids_of")
