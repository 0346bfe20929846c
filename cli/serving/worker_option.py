"""The option --workers of `tidemark serve` and `tidemark up`."""

import click

MAX_WORKERS = 64

workers_option = click.option(
    "--workers",
    type=click.IntRange(1, MAX_WORKERS),
    default=1,
    show_default=True,
    help="Server processes that share the port. More than one uses more than one processor.",
)
