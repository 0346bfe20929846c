"""The `tidemark` command: its group, and how an error that is no surprise is shown."""

import click

from cli.demo.command import demo
from cli.keys import keys
from cli.migrate import migrate
from cli.notify import notify
from cli.replay.command import replay
from cli.serve import serve
from cli.up import up
from cli.watch.command import watch


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="tidemark", message="tidemark %(version)s")
def tidemark() -> None:
    """Tells you the moment a customer's usage or spend crosses a line.

    `tidemark up` runs everything on this machine. Settings are environment variables, TIDEMARK_…; what is wrong
    with them is said at the start, all of it at once.
    """


for command in (up, serve, notify, migrate, keys, replay, watch, demo):
    tidemark.add_command(command)


def main() -> None:
    """The console script."""
    tidemark.main(prog_name="tidemark")


if __name__ == "__main__":
    main()
