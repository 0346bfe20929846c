"""The table of resources and the contract: every RPC has a command, and every command can be made."""

import io
import subprocess
import sys
from functools import reduce

import click
import pytest

from cli.console import Problem, confirm
from cli.main import COMMANDS, tidemark
from cli.resources import contract
from cli.resources.catalog import ELSEWHERE, RESOURCES
from cli.resources.cells import Times, cell, event_type_text
from cli.resources.commands import ResourceGroup, arguments_of, command_of, group_of, listed, verbs_of
from cli.resources.fields import FieldOption
from cli.resources.tables.model import Resource, Verb
from server.mapping.event_type_numbers import NUMBERS

VERBS = [(resource, verb) for resource in RESOURCES.values() for verb in verbs_of(resource)]
NAMES = [f"{resource.name} {verb.name}" for resource, verb in VERBS]
WRITTEN = {"AlertService/CreateAlert"}  # `alerts create`, which is written by hand


def test_every_rpc_of_the_contract_has_a_command() -> None:
    called = {verb.method for _, verb in VERBS} | WRITTEN
    missing = sorted(set(contract.all_methods()) - called - ELSEWHERE.keys())
    assert missing == [], "give them a verb in cli/resources/tables, or a reason in cli/resources/catalog.py"
    assert sorted(called & ELSEWHERE.keys()) == []
    assert sorted((called | ELSEWHERE.keys()) - set(contract.all_methods())) == []


@pytest.mark.parametrize(("resource", "verb"), VERBS, ids=NAMES)
def test_every_command_can_be_made_and_has_options_with_names_of_their_own(resource: Resource, verb: Verb) -> None:
    made = command_of(resource, verb)
    names = [name for parameter in made.params for name in [*parameter.opts, *parameter.secondary_opts]]
    assert len(names) == len(set(names)), sorted(names)
    shown = made.get_help(click.Context(made, info_name=f"tidemark {resource.name} {verb.name}"))
    assert verb.method.replace("/", ".") in shown
    for parameter in made.params:
        if isinstance(parameter, FieldOption):
            assert parameter.leaf.help, parameter.opts


@pytest.mark.parametrize(("resource", "verb"), VERBS, ids=NAMES)
def test_the_columns_and_the_arguments_of_a_command_are_fields_of_its_messages(
    resource: Resource, verb: Verb
) -> None:
    method = contract.method(verb.method)
    field = contract.items_field(method.output_type, verb.item)
    if field is not None and field.message_type is not None:
        empty = contract.new(field.message_type)
        for column in verb.columns or resource.columns:
            cell(empty, column, Times())
            if isinstance(column.value, str):
                *outer, last = column.value.split(".")
                assert last in reduce(getattr, outer, empty).DESCRIPTOR.fields_by_name, column
    for path in arguments_of(resource, verb, method, is_list=listed(method, verb)):
        *outer, last = path.split(".")
        assert last in reduce(getattr, outer, contract.new(method.input_type)).DESCRIPTOR.fields_by_name


def test_what_cannot_be_undone_is_asked_before_and_can_be_tried() -> None:
    asks = {verb.method for _, verb in VERBS if verb.irreversible}
    ends = ("Archive", "Delete", "Void", "Release", "BatchArchive", "Reset")
    for name in contract.all_methods():
        rpc = name.partition("/")[2]
        if rpc.startswith(ends):
            assert name in asks, name
    for resource, verb in VERBS:
        options = {name for parameter in command_of(resource, verb).params for name in parameter.opts}
        fields = contract.method(verb.method).input_type.fields_by_name
        assert ("--dry-run" in options) == ("validate_only" in fields), verb.method


def test_names_of_event_types_are_those_of_webhooks() -> None:
    field = contract.method("WebhookService/SendTestEvent").input_type.fields_by_name["event_type"]
    known = {event_type_text(name.replace("-", "_")): number for name, number in contract.enum_names(field).items()}
    assert {name: known.get(name) for name in NUMBERS} == dict(NUMBERS)


def test_every_resource_is_in_the_help_with_its_summary() -> None:
    for name, resource in RESOURCES.items():
        assert COMMANDS[name].summary == resource.summary
        group = group_of(name)
        assert isinstance(group, ResourceGroup)
        assert len(group.list_commands(click.Context(group))) == len(set(group.list_commands(click.Context(group))))
        for command in group.list_commands(click.Context(group)):
            assert group.get_command(click.Context(group), command) is not None


def test_an_unknown_command_is_told_apart_from_one_that_is_spelt_alike() -> None:
    from click.testing import CliRunner

    assert "Did you mean alerts?" in CliRunner().invoke(tidemark, ["alert", "list"]).output
    assert "Did you mean list?" in CliRunner().invoke(tidemark, ["alerts", "lst"]).output
    assert "Did you mean" not in CliRunner().invoke(tidemark, ["zzz"]).output


@pytest.mark.parametrize(
    ("lines", "forbidden"),
    [
        ("tidemark.main(['--help'], standalone_mode=False)", ("grpc", "google", "server", "store", "yaml", "rich")),
        ("complete('tidemark al', 1)", ("grpc", "google", "server", "store", "yaml", "rich")),
        ("complete('tidemark alerts a', 2)", ("grpc", "server", "store", "yaml", "rich")),
        ("complete('tidemark alerts list --st', 3)", ("grpc", "server", "store", "yaml", "rich")),
        ("tidemark.main(['alerts', 'list', '--help'], standalone_mode=False)", ("grpc", "server", "store", "rich")),
    ],
)
def test_help_and_completion_start_without_grpc(lines: str, forbidden: tuple[str, ...]) -> None:
    program = f"""
import os, sys
from cli.main import tidemark
def complete(words, number):
    os.environ.update(_TIDEMARK_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(number))
    try:
        tidemark.main(prog_name="tidemark")
    except SystemExit:
        pass
{lines}
print(sorted({{name.partition(".")[0] for name in sys.modules}} & set({forbidden!r})), file=sys.stderr)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr.strip() == "[]"
    assert ended.stdout


def test_commands_that_only_call_a_server_start_without_the_store() -> None:
    program = """
import sys
import cli.explain.command, cli.listen.command, cli.replay.command, cli.trigger.command, cli.watch.command
print(sorted({"alembic", "engine", "psycopg", "sqlalchemy", "store"} & set(sys.modules)))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


@pytest.mark.parametrize(("answer", "refused"), [(True, False), (False, True)])
def test_on_a_terminal_a_person_is_asked_before_what_cannot_be_undone(
    answer: bool, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def ask(text: str, **_settings: object) -> bool:
        asked.append(text)
        return answer

    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(click, "confirm", ask)
    if refused:
        with pytest.raises(Problem, match="nothing is changed"):
            confirm("deletes the plan pro for good", yes=False)
    else:
        confirm("deletes the plan pro for good", yes=False)
    assert asked == ["This deletes the plan pro for good.\nContinue?"]
    confirm("deletes the plan pro for good", yes=True)
    assert len(asked) == 1


class Terminal(io.StringIO):
    """A stream that a person reads and writes."""

    def isatty(self) -> bool:
        return True
