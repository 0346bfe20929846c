"""The commands of a resource, made from its verbs and the descriptors of their RPCs."""

from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem
from google.protobuf.descriptor import MethodDescriptor

from cli.connection.options import connection_options
from cli.resources import contract
from cli.resources.catalog import RESOURCES
from cli.resources.completion import IdArgument, name_of_argument
from cli.resources.fields import leaves, options_of
from cli.resources.printing import output_options
from cli.resources.requests import metavar_of
from cli.resources.tables.model import Resource, Verb
from cli.sections import SectionCommand, SectionOption, SuggestingGroup

PAGES = "Pages"  # headings of options in a help
FILTERS, FIELDS = "Filters", "Fields"


class ResourceGroup(SuggestingGroup):
    """The commands of one resource. Each is made when it is called, or for a help."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.name, help=resource.summary, short_help=resource.summary)
        self.resource = resource
        self._verbs = {verb.name: verb for verb in verbs_of(resource)}
        self._written = dict(resource.commands)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands, in the order of the help."""
        names = [*self._verbs]
        for name in self._written:
            names.insert(2 if name == "create" and len(names) > 2 else len(names), name)
        return names

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command."""
        if cmd_name in self._written:
            module, _, attribute = self._written[cmd_name].partition(":")
            written: click.Command = getattr(import_module(module), attribute)
            return written
        verb = self._verbs.get(cmd_name)
        return None if verb is None else command_of(self.resource, verb)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin with the word, without making them."""
        found = [CompletionItem(name) for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return found or click.Command.shell_complete(self, ctx, incomplete)


def verbs_of(resource: Resource) -> list[Verb]:
    """The verbs of a resource, with those of a put: `put`, `create` and `update`."""
    verbs = list(resource.verbs)
    if resource.put:
        made = [
            Verb("create", resource.put, done="created", summary=f"Create a {resource.one} that does not exist yet."),
            Verb("update", resource.put, done="updated", summary=f"Change the given fields of a {resource.one}."),
            Verb(
                "put",
                resource.put,
                done="put",
                summary=f"Create a {resource.one}, or replace it as a whole: fields that are not given get their"
                " defaults.",
            ),
        ]
        verbs[2:2] = made
    return verbs


def command_of(resource: Resource, verb: Verb) -> click.Command:
    """The command of a verb."""
    method = contract.method(verb.method)
    request = method.input_type
    is_list = listed(method, verb)
    whole = resource.field if resource.field in request.fields_by_name else ""
    paths = arguments_of(resource, verb, method, is_list=is_list)
    has_file = (
        not method.server_streaming
        and not method.name.startswith(("Get", "List", "Summarize"))
        and any(field.name not in paths for field in request.fields)
    )
    parameters: list[click.Parameter] = [
        IdArgument(path, metavar=f"[{metavar_of(path)}]" if has_file else metavar_of(path), required=not has_file)
        for path in paths
    ]
    hidden = (*verb.hidden, *paths, *(path.removeprefix(f"{whole}.") for path in paths if whole))
    section = FILTERS if is_list or method.server_streaming else FIELDS
    parameters += options_of(leaves(request, hidden, whole or verb.inside), section)
    if whole and verb.name == "update":
        parameters.append(
            SectionOption(
                ["--clear", "clear"],
                multiple=True,
                section=FIELDS,
                metavar="FIELD",
                help="Unset this field. May be repeated.",
            )
        )
    if has_file:
        what = contract.message_type(request.fields_by_name[whole]).name if whole else request.name
        parameters.append(
            SectionOption(
                ["--file", "-f", "file"],
                metavar="FILE|-",
                section="",
                help=f"Read the {what} from a file of YAML or JSON, - is standard input; options replace its fields.",
            )
        )
    if "validate_only" in request.fields_by_name:
        parameters.append(
            SectionOption(
                ["--dry-run", "dry_run"],
                is_flag=True,
                help="Make all checks and show the answer, but change nothing.",
            )
        )
    if verb.irreversible:
        parameters.append(SectionOption(["--yes", "-y", "yes"], is_flag=True, help="Do not ask before."))
    if is_list:
        parameters += _list_options(method)
    elif method.server_streaming:
        parameters.append(_limit_option("End after so many lines."))
    made = SectionCommand(
        verb.name,
        params=parameters,
        callback=_callback(resource, verb),
        help=_help(verb, method),
        short_help=verb.summary or contract.description(method.full_name),
    )
    for option in (*output_options(wide=True), *connection_options()):
        option(made)
    return made


def listed(method: MethodDescriptor, verb: Verb) -> bool:
    """Whether a verb shows a list that is read: pages, or all at once."""
    reads = method.name.startswith(("Get", "List", "Summarize", "BatchCheck"))
    return reads and not method.server_streaming and contract.is_list(method.output_type, verb.item)


def arguments_of(resource: Resource, verb: Verb, method: MethodDescriptor, *, is_list: bool) -> tuple[str, ...]:
    """The paths of the positional arguments of a verb."""
    if verb.arguments is not None:
        return verb.arguments
    request = method.input_type
    if is_list:
        return tuple(
            field.name
            for field in request.fields
            if "REQUIRED" in contract.behaviors(field) and not field.is_repeated and field.message_type is None
        )
    paths = []
    for name in resource.ids:
        if name in request.fields_by_name:
            paths.append(name)
        elif resource.field in request.fields_by_name:
            message = contract.message_type(request.fields_by_name[resource.field])
            assigned = "OUTPUT_ONLY" in contract.behaviors(message.fields_by_name[name])
            if not assigned or verb.name == "update":
                paths.append(f"{resource.field}.{name}")
    return tuple(paths)


def _list_options(method: MethodDescriptor) -> list[click.Parameter]:
    found: list[click.Parameter] = []
    fields = method.input_type.fields_by_name
    if "page_token" in fields:
        found += [
            _limit_option("List so many at most; 0: all. Default: 1000 in a table, all with --json and --yaml."),
            SectionOption(
                ["--page-token", "page_token"],
                section=PAGES,
                metavar="TOKEN",
                help="Begin after the page that this token came with.",
            ),
        ]
    if "include_total_size" in fields:
        found.append(
            SectionOption(["--count", "count"], is_flag=True, section=PAGES, help="Print only how many there are.")
        )
    found += [
        SectionOption(
            ["--watch", "watch"], is_flag=True, section=PAGES, help="Repeat the list until Ctrl-C; see --interval."
        ),
        SectionOption(
            ["--interval", "interval"],
            type=click.FloatRange(0.2, 3_600),
            default=2.0,
            show_default=True,
            section=PAGES,
            metavar="SECONDS",
            help="Seconds between two refreshes of --watch.",
        ),
    ]
    return found


def _limit_option(text: str) -> SectionOption:
    return SectionOption(["--limit", "limit"], type=click.IntRange(0), section=PAGES, metavar="N", help=text)


def _help(verb: Verb, method: MethodDescriptor) -> str:
    text = verb.summary or contract.description(method.full_name)
    calls = f"Calls {verb.method.replace('/', '.')}."
    return f"{text}\n\n{calls}"


def _callback(resource: Resource, verb: Verb) -> Any:
    @click.pass_context
    def run(context: click.Context, /, **_named: Any) -> None:
        # The calls need gRPC, which a help does not.
        from cli.resources.execution import execute

        execute(context, resource, verb)

    return run


def group_of(name: str) -> click.Group:
    """The group of a resource."""
    return ResourceGroup(RESOURCES[name])


__all__ = ["ResourceGroup", "arguments_of", "command_of", "group_of", "listed", "name_of_argument", "verbs_of"]
