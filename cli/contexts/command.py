"""The commands `tidemark context …`."""

import json
import sys
from dataclasses import asdict, replace
from typing import Any

import click

from cli.console import confirm, good, named, print_progress, print_result, quiet
from cli.contexts.checks import checked_key, checked_server
from cli.contexts.choice import choose
from cli.contexts.completion import complete_contexts
from cli.contexts.storage import NAME, Context, Contexts, find, load, path_of_file, save


@click.group()
def context() -> None:
    """Give names to servers, with their keys and certificates, and choose one.

    Every command that calls a server uses the context in use, unless an option or the environment names another
    server (--server, --context, TIDEMARK_SERVER, TIDEMARK_CONTEXT). A key goes to the server of its context only.
    """


@context.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--yaml", "as_yaml", is_flag=True, help="Print YAML.")
def list_(as_json: bool, as_yaml: bool) -> None:
    """List the contexts; the one in use has a star."""
    if as_json and as_yaml:
        raise click.UsageError("--json and --yaml exclude each other: give one of them.")
    contexts = load()
    if as_json or as_yaml:
        _print_list(contexts, as_yaml=as_yaml)
        return
    if not contexts.by_name:
        print_progress("there are no contexts: tidemark context set NAME --server HOST:PORT")
    width = max(map(len, contexts.by_name), default=0)
    for name, one in sorted(contexts.by_name.items()):
        mark = good("*") if name == contexts.current else " "
        print_result(
            f"{mark} {named(name.ljust(width))}  {one.server or quiet('(no server)')}  {_about(one)}".rstrip()
        )


def _print_list(contexts: Contexts, *, as_yaml: bool) -> None:
    """Prints the contexts for programs, without keys."""
    from cli.yaml_text import yaml_of

    listed = [
        {"name": name, **_shown(one), "in_use": name == contexts.current}
        for name, one in sorted(contexts.by_name.items())
    ]
    document = {"contexts": listed}
    print_result(yaml_of(document).rstrip() if as_yaml else json.dumps(document, ensure_ascii=False, indent=2))


def _shown(one: Context) -> dict[str, Any]:
    """What is set of a context, with its key hidden."""
    return {name: hidden(value) if name == "key" else value for name, value in asdict(one).items() if value}


def _about(one: Context) -> str:
    parts = []
    if one.key:
        parts.append("key")
    elif one.key_command:
        parts.append("key by command")
    if one.client_certificate:
        parts.append("client certificate")
    elif one.tls or one.server_ca:
        parts.append("TLS")
    return quiet(", ".join(parts)) if parts else ""


@context.command()
@click.argument("name", required=False, shell_complete=complete_contexts)
def show(name: str | None) -> None:
    """Show a context, without its key; without NAME what a command would use now."""
    if name is None:
        chosen = choose(Context(), None)
        print_progress(f"from {chosen.source}")
        one = chosen.context
    else:
        one = find(load(), name)
    for key, value in _shown(one).items():
        print_result(f"{key:<20}{'yes' if value is True else value}")


def hidden(key: str) -> str:
    """A key of which only the last four characters are shown."""
    return f"…{key[-4:]}" if len(key) > 12 else "…"


@context.command()
@click.argument("name", shell_complete=complete_contexts)
def use(name: str) -> None:
    """Use a context from now on; - is none."""
    contexts = load()
    if name == "-":
        save(replace(contexts, current=""))
        print_progress("no context is in use")
        return
    found = find(contexts, name)
    save(replace(contexts, current=name))
    print_progress(f"{named(name)} is in use: {found.server}")


@context.command(name="set")
@click.argument("name", shell_complete=complete_contexts)
@click.option("--server", metavar="HOST:PORT", help="Address of the server.")
@click.option("--key", metavar="KEY|-", help="API key; - asks for it, or reads it from standard input.")
@click.option("--key-command", metavar="COMMAND", help="A program and its arguments, whose output is the key.")
@click.option("--tls/--no-tls", default=None, help="Use TLS, with the system's authorities.")
@click.option("--server-ca", metavar="FILE", help="Authorities of the server's certificate, in PEM.")
@click.option("--client-certificate", metavar="FILE", help="Certificate of the client, in PEM.")
@click.option("--client-key", metavar="FILE", help="Private key of the client's certificate, in PEM.")
@click.option("--use/--no-use", "use_it", default=None, help="Use it from now on. Default: if it is the first one.")
def set_(name: str, use_it: bool | None, **values: Any) -> None:
    """Create a context, or change what is given of it. An empty value removes it."""
    if not NAME.fullmatch(name):
        raise click.BadParameter(
            "write 1 to 63 letters, digits, dots, dashes and underscores; a letter or a digit first",
            param_hint="NAME",
        )
    contexts = load()
    if values["key"] == "-":
        values["key"] = _asked() if sys.stdin.isatty() else sys.stdin.readline().strip()
    given = {key: value for key, value in values.items() if value is not None}
    if given.get("key") and given.get("key_command"):
        raise click.UsageError("--key and --key-command exclude each other: give one of them.")
    if given.get("key"):
        given |= {"key": checked_key(given["key"]) or "", "key_command": ""}
    elif given.get("key_command"):
        given["key"] = ""
    if given.get("server"):
        checked_server(given["server"])
    one = replace(contexts.by_name.get(name, Context()), **given)
    if not one.server:
        raise click.UsageError("a new context needs --server HOST:PORT")
    if bool(one.client_certificate) != bool(one.client_key):
        raise click.UsageError("--client-certificate and --client-key belong together: give both or none.")
    current = contexts.current
    if use_it or (use_it is None and not contexts.by_name):
        current = name
    save(Contexts(current, {**contexts.by_name, name: one}))
    print_progress(f"{named(name)} is set{' and in use' if current == name else ''}: {one.server}")
    print_progress(quiet(f"stored in {path_of_file()}"))


def _asked() -> str:
    text: str = click.prompt("API key", hide_input=True, err=True)
    return text.strip()


@context.command()
@click.argument("name", shell_complete=complete_contexts)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def delete(name: str, yes: bool) -> None:
    """Delete a context with its key."""
    contexts = load()
    if find(contexts, name).key:
        confirm(f"deletes the context {name} with its API key, which is stored nowhere else here", yes=yes)
    left = {key: one for key, one in contexts.by_name.items() if key != name}
    save(Contexts("" if contexts.current == name else contexts.current, left))
    print_progress(f"{named(name)} is deleted")
    if contexts.current == name and left:
        print_progress("no context is in use now: tidemark context use NAME")
