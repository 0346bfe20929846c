"""Which server a command calls, and with which credentials: of options, the environment, a context, or by default."""

import os
import shlex
import subprocess
from dataclasses import dataclass, replace

from cli.console import ConfigurationProblem
from cli.contexts.storage import Context, find, load, load_if_readable
from runtime.configuration import DEFAULT_LISTEN

KEY_COMMAND_TIMEOUT = 60.0  # seconds
VARIABLES = {
    "server": "TIDEMARK_SERVER",
    "key": "TIDEMARK_KEY",
    "tls": "TIDEMARK_TLS",
    "server_ca": "TIDEMARK_SERVER_CA",
    "client_certificate": "TIDEMARK_CLIENT_CERTIFICATE",
    "client_key": "TIDEMARK_CLIENT_KEY",
}
CONTEXT_VARIABLE = "TIDEMARK_CONTEXT"


@dataclass(frozen=True)
class Chosen:
    """What a command calls. source: where the server comes from, for people."""

    context: Context
    source: str


def choose(options: Context, name: str | None) -> Chosen:
    """The server and the credentials of a command. options: its options. name: of --context.

    Each value of an option replaces that of the environment, which replaces that of the context; a context that
    --context names replaces the environment, too. A context's credentials go to its own server only: where an option
    or the environment names another one, the context is not used. Raises Problem.
    """
    if name is not None:
        base, source = find(load(), name), f"the context {name}"
        environment = Context()
    else:
        environment = _environment()
        base, source = Context(), ""
        if not options.server and not environment.server:
            base, source = _current()
    if options.server and name is not None:
        base = Context() if options.server != base.server else base
    chosen = _over(_over(base, environment), options)
    if options.server:
        source = "--server"
    elif environment.server:
        source = VARIABLES["server"]
    elif not chosen.server:
        default = os.environ.get("TIDEMARK_LISTEN") or DEFAULT_LISTEN
        chosen, source = replace(chosen, server=default), "the default"
    return Chosen(chosen, source)


def _current() -> tuple[Context, str]:
    """The context of TIDEMARK_CONTEXT, else the one in use."""
    named = os.environ.get(CONTEXT_VARIABLE)
    if named:
        return find(load(), named), f"the context {named} ({CONTEXT_VARIABLE})"
    contexts = load_if_readable()
    if contexts.current and contexts.current in contexts.by_name:
        return contexts.by_name[contexts.current], f"the context {contexts.current}"
    return Context(), ""


def _environment() -> Context:
    values = {name: os.environ.get(variable, "") for name, variable in VARIABLES.items()}
    tls = values.pop("tls").strip().lower()
    return Context(**values, tls=tls in ("1", "true", "t", "yes", "y", "on"))


def _over(below: Context, above: Context) -> Context:
    """The values of `above`, and those of `below` that it does not have. A key replaces a command that prints one."""
    changes = {name: getattr(above, name) for name in VARIABLES if getattr(above, name)}
    if above.key:
        changes["key_command"] = ""
    return replace(below, **changes)


def key_of(context: Context) -> str:
    """The API key of a context; runs its command if it has one. Raises Problem."""
    if context.key or not context.key_command:
        return context.key.strip()
    try:
        result = subprocess.run(
            shlex.split(context.key_command),
            stdin=subprocess.DEVNULL if not os.isatty(0) else None,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            timeout=KEY_COMMAND_TIMEOUT,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise ConfigurationProblem(f"the key command of the context cannot run: {error}") from None
    if result.returncode or not result.stdout.strip():
        raise ConfigurationProblem(
            f"the key command of the context ended with {result.returncode} and printed"
            f" {'a key' if result.stdout.strip() else 'no key'}: {context.key_command}"
        )
    return result.stdout.strip()
