"""The `tidemark` command: a group that imports the module of a command when that command is called."""

import errno
import gc
import os
import sys
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem

from cli.console import ConfigurationProblem, Problem, install_command
from cli.sections import SuggestingGroup
from runtime.first_process import end_at_sigterm
from runtime.redaction import error_lines

EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_READER_GONE = 141  # 128 + SIGPIPE


@dataclass(frozen=True)
class Entry:
    """A command: its section in the help, one line about it, and where it is.

    target: `module:attribute`; empty: the group of a resource.
    """

    section: str
    summary: str
    target: str = ""


def _of_resources() -> dict[str, Entry]:
    """The groups of the table of resources. As all commands, they are found by the name of a module."""
    resources: dict[str, Any] = import_module("cli.resources.catalog").RESOURCES
    return {name: Entry(_RESOURCES, resource.summary) for name, resource in resources.items()}


_SERVICE, _TOOLS, _RESOURCES = "Run the service", "Work with usage and webhooks", "Resources of the API"
_DECLARED, _SETTINGS = "Declare alerts and others in files", "This command"

# In the order of the help. Only the module of the called one is imported: a help, a completion and a command that
# calls a server start several times as fast.
COMMANDS: dict[str, Entry] = {
    "up": Entry(_SERVICE, "Start everything on this machine: the server and the notifier.", "cli.serving.up:up"),
    "serve": Entry(_SERVICE, "Start a gRPC server, or several that share its port.", "cli.serving.serve:serve"),
    "notify": Entry(_SERVICE, "Start a notifier, which sends webhooks.", "cli.serving.notify:notify"),
    "console": Entry(_SERVICE, "Show the pages of a server, for a browser.", "cli.pages.command:console"),
    "migrate": Entry(_SERVICE, "Bring the schema of the database up to date.", "cli.serving.migrate:migrate"),
    "keys": Entry(_SERVICE, "Create, list, change, rotate and revoke API keys.", "cli.organizations.keys:keys"),
    "secrets": Entry(_SERVICE, "Work on the encrypted webhook secrets.", "cli.organizations.secrets:secrets"),
    "health": Entry(_SERVICE, "Ask a server whether it serves.", "cli.serving.health:health"),
    "doctor": Entry(_SERVICE, "Say what is wrong, and what to do about it.", "cli.doctor.command:doctor"),
    "restored": Entry(_SERVICE, "Prepare a database restored from a backup.", "cli.serving.restored:restored"),
    "embedded": Entry(_SERVICE, "Run a program of the embedded PostgreSQL.", "cli.serving.embedded:embedded"),
    "replay": Entry(_TOOLS, "Stream a file of usage events; safe to run twice.", "cli.replay.command:replay"),
    "watch": Entry(_TOOLS, "Show alert states or notifications, live.", "cli.watch.command:watch"),
    "listen": Entry(_TOOLS, "Receive webhooks on this machine, and forward them.", "cli.listen.command:listen"),
    "trigger": Entry(_TOOLS, "Send a test event of any type to an endpoint.", "cli.trigger.command:trigger"),
    "explain": Entry(_TOOLS, "Say why an alert has notified, or why not.", "cli.explain.command:explain"),
    "check": Entry(_TOOLS, "Say whether usage fits into limits and balances.", "cli.enforcement.check:check"),
    "apply": Entry(_DECLARED, "Create and change what files declare.", "cli.apply.command:apply"),
    "export": Entry(_DECLARED, "Print what is there as such a file.", "cli.apply.export:export"),
    **_of_resources(),
    "context": Entry(_SETTINGS, "Names for several servers and their keys.", "cli.contexts.command:context"),
    "completion": Entry(_SETTINGS, "Print the completion of a shell.", "cli.about.completion:completion"),
    "version": Entry(_SETTINGS, "Print the versions of this command and of the server.", "cli.about.version:version"),
}

# The packages of an extra, by the name of the import. `store.embedded` checks its own package.
EXTRA_OF_PACKAGE = {"jinja2": "console", "rich": "cli"}


class CommandsOnDemand(SuggestingGroup):
    """A group with the commands of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        try:
            if not entry.target:
                group: click.Command = _imported("cli.resources.commands").group_of(cmd_name)
                return group
            module, _, attribute = entry.target.partition(":")
            command: click.Command = getattr(_imported(module), attribute)
        except ModuleNotFoundError as error:
            if error.name not in EXTRA_OF_PACKAGE:
                raise
            return _without_extra(cmd_name, EXTRA_OF_PACKAGE[error.name])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands of each section, without importing them."""
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, entry.summary) for name, entry in COMMANDS.items() if entry.section == section]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands that begin with the word, without importing them."""
        found = [
            CompletionItem(name, help=entry.summary)
            for name, entry in COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. Ends with 141 when the reader of its output has gone; click would end with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _drop_output()
            raise SystemExit(EXIT_READER_GONE) from None
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _drop_output()
            raise Problem(f"the output cannot be written: {error.strerror}") from None


def _drop_output() -> None:
    """Otherwise Python would flush its buffers at the end of the process, fail, and print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Opens the null device in place of each standard stream with which the process was not started (`>&-`).

    Python has None for them, and their numbers would go to the next files and sockets that the process opens.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # for as long as the process runs


def _imported(name: str) -> ModuleType:
    """The module, imported without the garbage collector, which would search the growing modules again and again."""
    gc.disable()
    try:
        return import_module(name)
    finally:
        gc.enable()


def _without_extra(name: str, extra: str) -> click.Command:
    """Replaces a command whose extra is not installed. With any arguments it names the extra and ends."""

    def refuse() -> None:
        raise ConfigurationProblem(f"`tidemark {name}` needs the extra `{extra}`: {install_command(extra)}")

    return click.Command(
        name,
        callback=refuse,
        short_help=f"Needs the extra `{extra}`, which is not installed.",
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )


@click.group(
    cls=CommandsOnDemand,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name="tidemark", message="tidemark %(version)s")
def tidemark() -> None:
    """Notifies you when a customer's usage, spend or balance reaches a threshold.

    `tidemark up` runs everything on this machine. Settings are environment variables, TIDEMARK_…. If settings are
    invalid, a command lists all of them and ends with exit code 2.
    """


def main() -> None:
    """The console script."""
    run(tidemark, "tidemark")


def run(command: click.Command, name: str) -> NoReturn:
    """Runs a command as this process, under that name, and ends the process.

    Ends with 130 after Ctrl-C, and with 141 and no message when the reader of the output has gone
    (`tidemark … | head`), as a shell reports programs that SIGINT and SIGPIPE end.
    """
    end_at_sigterm()
    _open_streams()
    # The message of a database driver's error can contain values of a row.
    sys.excepthook = lambda _, error, __: sys.stderr.write(error_lines(error) + "\n")
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
