"""Shell completion of names of contexts."""

import click
from click.shell_completion import CompletionItem

from cli.console import Problem
from cli.contexts.storage import load


def complete_contexts(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The contexts whose names begin with the word."""
    try:
        contexts = load()
    except Problem:
        return []
    return [
        CompletionItem(name, help=one.server)
        for name, one in sorted(contexts.by_name.items())
        if name.startswith(incomplete)
    ]
