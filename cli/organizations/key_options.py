"""The options of `tidemark keys create` and `update`: what a key may be used for, and until when."""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import click

from server.calls.validation import id_problem
from store.identity.roles import Role

Command = TypeVar("Command", bound=Callable[..., Any])

MAX_DISPLAY_NAME = 128  # characters
_UNITS = {"s": timedelta(seconds=1), "m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1)}
_LONGEST = timedelta(days=36_500)


class Duration(click.ParamType[timedelta]):
    """A number with a unit: 90s, 30m, 12h, 30d."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """The duration; at most a hundred years."""
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"([0-9]{1,12})([smhd])", str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration: write a whole number and s, m, h or d, such as 30d", param, ctx)
        duration = min(int(found[1]) * _UNITS[found[2]], 2 * _LONGEST) if len(found[1]) < 9 else 2 * _LONGEST
        if duration > _LONGEST:
            self.fail(f"{value!r} is longer than a hundred years", param, ctx)
        return duration


DURATION = Duration()


def limits(command: Command) -> Command:
    """Adds the options that limit a key."""
    for option in (
        click.option("--expires-in", type=DURATION, help="Duration from now after which the key is refused, as 30d."),
        click.option("--display-name", help="What the key is for, as a text for people."),
        click.option("--customer", help="Id of the one customer that the key may read; only with the role reader."),
        click.option(
            "--role",
            "roles",
            multiple=True,
            type=click.Choice([role.lower() for role in Role]),
            help="What the key may be used for; repeat it for several roles. Default: admin, which includes all.",
        ),
    ):
        command = option(command)
    return command


def settings(roles: tuple[str, ...], customer: str | None, display_name: str | None) -> Mapping[str, Any]:
    """The fields of KeySettings that these options set. Raises click.BadParameter."""
    found: dict[str, Any] = {}
    if roles:
        found["roles"] = frozenset(Role(role.upper()) for role in roles)
    if customer is not None:
        # A script whose variable is empty must not create a key for all customers.
        if (problem := id_problem(customer)) is not None:
            raise click.BadParameter(f"this is no id of a customer: {problem}", param_hint="--customer")
        found["customer_id"] = customer
    if display_name is not None:
        if len(display_name) > MAX_DISPLAY_NAME or not display_name.isprintable():
            raise click.BadParameter(
                f"write at most {MAX_DISPLAY_NAME} printable characters", param_hint="--display-name"
            )
        found["display_name"] = display_name
    return found


def check_customer(roles: frozenset[Role], customer_id: str) -> None:
    """Raises click.BadParameter for a key that is limited to a customer and may do more than read."""
    if customer_id and roles != {Role.READER}:
        raise click.BadParameter("a key of one customer only reads: add --role reader", param_hint="--customer")
