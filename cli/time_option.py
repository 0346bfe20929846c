"""Times as options of commands."""

from datetime import UTC, datetime

import click


def read_time(context: click.Context, parameter: click.Parameter, value: str | None) -> datetime | None:
    """The aware time of an option; without a zone it is UTC."""
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a time: write it as 2026-03-15T12:00:00Z") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
