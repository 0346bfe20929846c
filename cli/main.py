"""The `tidemark` command: a group that imports the module of a command when that command is called."""

import gc
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

import click

from cli.console import ConfigurationProblem, install_command
from runtime.redaction import error_lines

EXIT_INTERRUPTED = 130  # 128 + SIGINT
EXIT_READER_GONE = 141  # 128 + SIGPIPE

# In the order of the help. Only the called one is imported: without the server, a client command starts three times
# as fast.
COMMANDS = {
    "up": "cli.up",
    "serve": "cli.serve",
    "notify": "cli.notify",
    "console": "cli.pages.command",
    "migrate": "cli.migrate",
    "keys": "cli.keys",
    "quotas": "cli.quotas",
    "secrets": "cli.secrets",
    "health": "cli.health",
    "restored": "cli.restored",
    "embedded": "cli.embedded",
    "replay": "cli.replay.command",
    "watch": "cli.watch.command",
    "listen": "cli.listen.command",
    "explain": "cli.explain.command",
    "check": "cli.enforcement.check",
    "reservations": "cli.enforcement.reservations",
    "doctor": "cli.doctor.command",
}

# The packages of an extra, by the name of the import. `store.embedded` checks its own package.
EXTRA_OF_PACKAGE = {"jinja2": "console", "rich": "cli"}


class CommandsOnDemand(click.Group):
    """A group with the commands of COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        try:
            module = _imported(COMMANDS[cmd_name])
        except ModuleNotFoundError as error:
            if error.name not in EXTRA_OF_PACKAGE:
                raise
            return _without_extra(cmd_name, EXTRA_OF_PACKAGE[error.name])
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. Ends with 141 when the reader of its output has gone; click would end with 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Otherwise Python would flush its buffers at the end of the process, fail, and print a traceback.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(EXIT_READER_GONE) from None


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
