"""The command `tidemark completion`."""

import click
from click.shell_completion import get_completion_class

PROGRAM = "tidemark"
VARIABLE = "_TIDEMARK_COMPLETE"
FILES = {
    "bash": 'eval "$(tidemark completion bash)"              # in ~/.bashrc',
    "zsh": 'eval "$(tidemark completion zsh)"               # in ~/.zshrc, after compinit',
    "fish": "tidemark completion fish > ~/.config/fish/completions/tidemark.fish",
}


@click.command(
    help="Print the completion of a shell.\n\nCommands, options and values of enums are completed at once; ids of"
    " alerts, customers and others by a question to the server, which takes at most 1.5 seconds.\n\n\b\n"
    + "\n".join(FILES.values())
)
@click.argument("shell", type=click.Choice(list(FILES)))
def completion(shell: str) -> None:
    """Prints the script."""
    made = get_completion_class(shell)
    assert made is not None, shell  # click has these three
    from cli.main import tidemark

    # Bash's class asks the bash of this machine for its version, which only its own check needs.
    click.echo(click.shell_completion.ShellComplete.source(made(tidemark, {}, PROGRAM, VARIABLE)))
