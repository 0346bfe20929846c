"""`tidemark alerts create CONDITION`: an alert in one line."""

from functools import cache
from typing import Any

import click
import grpc
from click.shell_completion import CompletionItem
from google.protobuf.descriptor import FieldDescriptor

from cli.connection.options import connection_options
from cli.resources import contract
from cli.resources.catalog import RESOURCES
from cli.resources.completion import ids
from cli.resources.fields import leaves, options_of
from cli.resources.printing import output_options
from cli.resources.tables.model import Verb
from cli.resources.tables.texts import measured, scope, short_condition
from cli.resources.thresholds import put_threshold
from cli.resources.values import BadValue
from cli.sections import SectionCommand, SectionOption, SuggestingGroup

METHOD = "AlertService/CreateAlert"
VERB = Verb("create", METHOD, done="created")
_HIDDEN = ("scope", "condition", "thresholds", "alert.display_name", "display_name")


@cache
def conditions() -> dict[str, FieldDescriptor]:
    """The conditions by their short names."""
    alert = contract.method(METHOD).input_type.fields_by_name["alert"]
    return {
        short_condition(field.name): field
        for field in contract.message_type(alert).oneofs_by_name["condition"].fields
    }


class ConditionsGroup(SuggestingGroup):
    """The conditions, each a command with the options of its fields."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The short names."""
        return list(conditions())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a condition, by its short name or that of the contract."""
        name = short_condition(cmd_name.replace("-", "_"))
        field = conditions().get(name) or conditions().get(cmd_name)
        return None if field is None else _command(name if name in conditions() else cmd_name, field)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The conditions that begin with the word."""
        found = [
            CompletionItem(name, help=contract.description(field.full_name))
            for name, field in conditions().items()
            if name.startswith(incomplete)
        ]
        return found or click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the conditions without making their commands."""
        with formatter.section("Conditions"):
            formatter.write_dl(
                [(name, contract.description(field.full_name)) for name, field in conditions().items()]
            )


def _of_file(context: click.Context) -> None:
    """Creates the alert of --file, without a condition on the command line."""
    if context.invoked_subcommand is None:
        if not context.params.get("file"):
            raise click.UsageError(
                "name a condition, as in `tidemark alerts create spend --threshold 100`, or --file"
            )
        _create(context)
    elif context.params.get("file"):
        raise click.UsageError("--file has the condition already: leave out the condition, or --file")


@click.pass_context
def _callback(context: click.Context, /, **_named: Any) -> None:
    if isinstance(context.command, ConditionsGroup):
        _of_file(context)
    else:
        _create(context)


def _common() -> list[click.Parameter]:
    request = contract.method(METHOD).input_type
    return [
        SectionOption(["--name", "--display-name", "display_name"], metavar="TEXT", help="A text for people."),
        *options_of(leaves(request, _HIDDEN, "alert"), ""),
        SectionOption(["--dry-run", "dry_run"], is_flag=True, help="Make all checks, but create nothing."),
    ]


def _command(name: str, field: FieldDescriptor) -> click.Command:
    alert = contract.method(METHOD).input_type.fields_by_name["alert"]
    own = leaves(contract.message_type(field), (), "", (alert, field), 2)
    parameters: list[click.Parameter] = [
        *options_of(own, "Condition"),
        SectionOption(
            ["--threshold", "thresholds"],
            multiple=True,
            section="Condition",
            metavar="LEVEL",
            help="A level: 100, 80% of the limit, +50 for every further 50; with a severity: 100:critical. Or all"
            " fields: value=100,code=block. May be repeated.",
        ),
        IdOption("customer_id", "--customer", "Only this customer."),
        IdOption("plan_id", "--plan", "Only customers on this plan; with --customer while it is on the plan."),
        IdOption("subscription_id", "--subscription", "Only this subscription of --customer."),
        *_common(),
    ]
    made = SectionCommand(
        name,
        params=parameters,
        callback=_callback,
        help=f"Create an alert: {field.name} {_lowered(contract.description(field.full_name))}\n\nWithout --customer"
        " and --plan it covers all customers. Calls AlertService.CreateAlert.",
    )
    for option in (*output_options(wide=False), *connection_options()):
        option(made)
    return made


class IdOption(SectionOption):
    """An option of the scope, whose ids the shell completes."""

    def __init__(self, field: str, name: str, text: str) -> None:
        super().__init__([name, f"{name}-id", f"scope_{field}"], section="Scope", metavar="ID", help=text)
        self.field = field

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The ids that begin with the word."""
        return ids(self.field, ctx, incomplete)


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _create(context: click.Context) -> None:
    from cli.connection.channels import caller
    from cli.connection.options import address_in
    from cli.connection.problems import as_failed, problem_of
    from cli.resources.answers import show_answer
    from cli.resources.execution import Run
    from cli.resources.printing import printer_of
    from cli.resources.requests import given, put_options, read_file

    method = contract.method(METHOD)
    options = given(context, context.command.params)
    run = Run(context, RESOURCES["alerts"], VERB, method, options, printer_of(dict(context.params)))
    request = contract.new(method.input_type)
    params = context.params
    if params.get("file"):
        from cli.resources.documents import strip

        read_file(params["file"], request.alert)
        strip(request.alert)
    else:
        name = context.command.name or ""
        getattr(request.alert, conditions()[name].name).SetInParent()
        _put_scope(request.alert.scope, params)
        for text in params["thresholds"]:
            try:
                # Of a condition that measures percentages, the level itself is one.
                of_limit = not name.endswith("percentage") and not name.startswith("license")
                put_threshold(request.alert.thresholds.add(), text, percent_of_limit=of_limit)
            except BadValue as error:
                raise click.BadParameter(str(error), param_hint="--threshold") from None
    put_options(request, options)
    if params.get("display_name"):
        request.alert.display_name = params["display_name"]
    elif not request.alert.display_name:
        request.alert.display_name = _name_of(request.alert)
    request.validate_only = bool(params.get("dry_run"))
    address = address_in(context)
    with caller(address) as server:
        try:
            show_answer(run, request, server.call(method, request))
        except grpc.RpcError as error:
            raise problem_of(as_failed(error), address) from None


def _put_scope(target: Any, params: dict[str, Any]) -> None:
    customer, plan, subscription = (params[f"scope_{name}_id"] for name in ("customer", "plan", "subscription"))
    if subscription:
        if not customer or plan:
            raise click.UsageError("--subscription goes with --customer, and without --plan")
        target.subscription.customer_id, target.subscription.subscription_id = customer, subscription
    elif customer and plan:
        target.customer_plan.customer_id, target.customer_plan.plan_id = customer, plan
    elif customer:
        target.customer.customer_id = customer
    elif plan:
        target.plan.plan_id = plan
    else:
        target.all_customers.SetInParent()


def _name_of(alert: Any) -> str:
    """The display name of an alert that gets none: what it measures, and its scope."""
    return " ".join(
        part for part in (short_condition(alert.WhichOneof("condition") or ""), measured(alert), scope(alert)) if part
    )[:256]


def _group() -> ConditionsGroup:
    made = ConditionsGroup(
        "create",
        invoke_without_command=True,
        callback=_callback,
        help="Create an alert, by its condition: tidemark alerts create spend --customer acme --threshold 100.\n\n"
        "`tidemark alerts create CONDITION --help` lists the options of a condition.",
        short_help="Create an alert, by its condition or from a file.",
        params=[
            SectionOption(
                ["--file", "-f", "file"],
                metavar="FILE|-",
                help="Read the Alert from a file of YAML or JSON; - is standard input.",
            ),
            SectionOption(["--dry-run", "dry_run"], is_flag=True, help="Make all checks, but create nothing."),
        ],
    )
    for option in (*output_options(wide=False), *connection_options()):
        option(made)
    return made


create = _group()
