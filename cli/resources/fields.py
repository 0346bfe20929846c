"""The fields of a request that have options, and how the text of an option gets into the message."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import CompletionItem
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from cli.resources import documents, thresholds
from cli.resources.completion import ids
from cli.resources.contract import (
    DURATION,
    FIELD_MASK,
    PAGING,
    TIMESTAMP,
    behaviors,
    description,
    enum_names,
    is_map,
    is_number,
    message_type,
)
from cli.resources.values import BadValue, value_of
from cli.sections import SectionOption

MAX_DEPTH = 4  # of messages in messages
MANY = 12  # values of an enum, above which the help does not list them
_LEAVES = frozenset({TIMESTAMP, DURATION})
_OWN = PAGING | {"validate_only", "update_mask"}

# Ids of resources have options without `_id`, which is kept as a second name.
_RESOURCES = {
    *("alert", "balance", "billing", "contract", "customer", "delivery", "endpoint", "invoice", "job", "metric"),
    *("notification", "parent_customer", "plan", "recharge", "reservation", "subscription", "actor", "resource"),
    "draw_down_metric",
}
# Options with another name than their path makes.
_NAMES = {
    "spend.currency": "currency",
    "quantity.metric_id": "metric",
    "window.calendar.unit": "window",
    "window.rolling.duration": "rolling-window",
    "window.billing_period": "billing-period-window",
    "billing_cycle.anchor_time": "billing-anchor",
    "billing_cycle.cadence": "billing-cadence",
    "billing_cycle.interval_count": "billing-interval",
    "billing_cycle.time_zone": "billing-time-zone",
    "seat.seat_group_key": "seat-group-key",
    "seat.seat_group_value": "seat-group-value",
    "seat_filter.seat_group_key": "seat-group-key",
    "seat_filter.seat_group_value": "seat-group-value",
    "up_to.level": "up-to",
    "up_to.min_amount": "up-to-min-amount",
    "fixed.amount": "fixed-amount",
    "credentials.basic.username": "basic-username",
    "credentials.basic.password": "basic-password",
    "credentials.bearer.token": "bearer-token",
}
_SINGULAR = {
    "statuses": "status",
    "aliases": "alias",
    "balances": "balance",
    "usages": "usage",
    "entries": "entry",
    "properties": "property",
}


@dataclass(frozen=True)
class Leaf:
    """A field that an option gives, by its path in the request. skipped: the steps that the option leaves out."""

    path: tuple[FieldDescriptor, ...]
    skipped: int = 0

    @property
    def field(self) -> FieldDescriptor:
        """The field itself."""
        return self.path[-1]

    @property
    def key(self) -> str:
        """The path as text: `customer.display_name`."""
        return ".".join(field.name for field in self.path)

    @property
    def is_many(self) -> bool:
        """Whether the option may be repeated."""
        return bool(self.field.is_repeated)

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value: a message without fields, as a choice of a oneof."""
        message = self.field.message_type
        return message is not None and not message.fields and not self.is_many

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the option, without `--`; those after the first are not in the help."""
        steps = [field.name for field in self.path[self.skipped :]]
        key = ".".join(steps)
        long = "-".join(_kebab(step) for step in steps)
        name = _NAMES.get(key, "")
        if not name:
            shown = list(steps)
            if len(shown) > 1 and shown[-1] in (shown[-2], f"{shown[-2]}_id"):
                del shown[-2]
            shown[-1] = _without_id(_singular(shown[-1]) if self.is_many else shown[-1])
            name = "-".join(_kebab(step) for step in shown)
        last = _kebab(steps[-1]) if len(steps) > 1 and steps[-1] == f"{steps[-2]}_id" else long
        return tuple(dict.fromkeys((name, last)))

    @property
    def metavar(self) -> str:
        """What the help shows for the value."""
        field, message = self.field, self.field.message_type
        if is_map(field):
            return "KEY=VALUE"
        if message is not None:
            if documents.is_pair(message):
                return "KEY=VALUE"
            return {TIMESTAMP: "TIME", DURATION: "DURATION"}.get(message.full_name, "FIELD=VALUE,…")
        if field.enum_type is not None:
            known = enum_names(field)
            return "|".join(known) if len(known) <= MANY else "NAME"
        if field.type == FieldDescriptor.TYPE_BOOL:
            return ""
        if is_number(field):
            return "N"
        if field.name.endswith(("_id", "_ids")):
            return "ID"
        return "TEXT"

    @property
    def help(self) -> str:
        """The first sentence of the field's comment, and what the value looks like."""
        text = description(self.field.full_name)
        if self.metavar.startswith("FIELD"):
            names = [field.name for field in message_type(self.field).fields if "OUTPUT_ONLY" not in behaviors(field)]
            text += f" Fields: {', '.join(names)}."
        text += " May be repeated." if self.is_many else ""
        return text + (" Required." if "REQUIRED" in behaviors(self.field) else "")

    def put(self, request: Any, values: Any) -> None:
        """Puts the value of the option, or its values, into the request. Raises BadValue."""
        for field in self.path[:-1]:
            request = getattr(request, field.name)
            request.SetInParent()
        field = self.field
        if is_map(field):
            _put_map(getattr(request, field.name), values)
        elif self.is_many:
            target = getattr(request, field.name)
            del target[:]
            for text in values:
                if field.message_type is not None and field.message_type.name == thresholds.NAME:
                    thresholds.put_threshold(target.add(), text)
                elif field.message_type is not None and field.message_type.full_name not in _LEAVES:
                    documents.read_short(text, target.add())
                else:
                    target.append(value_of(field, text))
        elif self.is_flag:
            getattr(request, field.name).SetInParent()
        elif field.message_type is not None:
            getattr(request, field.name).CopyFrom(value_of(field, values))
        elif field.type == FieldDescriptor.TYPE_BOOL:
            setattr(request, field.name, values)
        else:
            setattr(request, field.name, value_of(field, values))


def _put_map(target: Any, texts: tuple[str, ...]) -> None:
    for text in texts:
        key, equals, value = text.partition("=")
        if equals and key:
            target[key] = value
        elif text.endswith("-") and len(text) > 1:
            target.pop(text[:-1], None)
        else:
            raise BadValue(f"{text!r}: write KEY=VALUE, or KEY- to remove the key")


def leaves(
    message: Descriptor,
    hidden: tuple[str, ...] = (),
    resource: str = "",
    path: tuple[FieldDescriptor, ...] = (),
    skipped: int = 0,
) -> Iterator[Leaf]:
    """The fields of a request that have options. hidden: the paths of fields without one; of a oneof its name.

    resource: the field with the resource, whose name the options leave out. path: where the message is in the
    request; the options leave out the first `skipped` steps of it.
    """
    for field in message.fields:
        steps = (*path, field)
        left_out = skipped or int(bool(resource) and steps[0].name == resource and len(steps) > 1)
        leaf = Leaf(steps, left_out)
        keys = {".".join(one.name for one in steps[start:]) for start in (0, left_out)}
        oneof = field.containing_oneof
        if (
            field.name in _OWN
            or keys & set(hidden)
            or (oneof is not None and oneof.name in hidden)
            or "OUTPUT_ONLY" in behaviors(field)
        ):
            continue
        whole = field.message_type
        if whole is None or field.is_repeated or whole.full_name in _LEAVES or not whole.fields:
            yield leaf
        elif whole.full_name != FIELD_MASK and whole.full_name.startswith("tidemark.") and len(steps) < MAX_DEPTH:
            yield from leaves(whole, hidden, resource, steps, skipped)


def options_of(found: Iterable[Leaf], section: str) -> list["FieldOption"]:
    """The options of fields. Where two would have one name, the second has only its long one."""
    taken: set[str] = set()
    made = []
    for leaf in found:
        names = [name for name in leaf.names if name not in taken] or [
            "-".join(_kebab(one.name) for one in leaf.path)
        ]
        taken.update(names)
        made.append(option_of(leaf, section, names))
    return made


def option_of(leaf: Leaf, section: str, names: Sequence[str] = ()) -> "FieldOption":
    """The option of a field."""
    names = [f"--{name}" for name in names or leaf.names]
    parameter = "field_" + leaf.key.replace(".", "__")
    settings: dict[str, Any] = {}
    if leaf.is_flag:
        settings["is_flag"] = True
    elif leaf.field.type == FieldDescriptor.TYPE_BOOL:
        names = [f"{name}/--no-{name[2:]}" for name in names[:1]]
        settings |= {"is_flag": True, "default": None}
    return FieldOption(
        [*names, parameter],
        leaf=leaf,
        section=section,
        multiple=leaf.is_many,
        metavar=leaf.metavar or None,
        **settings,
    )


class FieldOption(SectionOption):
    """The option of a field of a request. Its help is read when it is shown."""

    def __init__(self, *positional: Any, leaf: Leaf, **named: Any) -> None:
        super().__init__(*positional, **named)
        self.leaf = leaf

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names of an enum, or the ids that the server has, that begin with the word."""
        if self.leaf.field.enum_type is not None:
            return [CompletionItem(name) for name in enum_names(self.leaf.field) if name.startswith(incomplete)]
        return ids(self.leaf.field.name, ctx, incomplete)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The row of the help."""
        self.help = self.leaf.help
        return super().get_help_record(ctx)


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _singular(name: str) -> str:
    if name.endswith("_ids"):
        return name[:-1]
    head, _, last = name.rpartition("_")
    last = _SINGULAR.get(last, last.removesuffix("s") if not last.endswith("ss") else last)
    return f"{head}_{last}" if head else last


def _without_id(name: str) -> str:
    base = name.removesuffix("_id")
    return base if base in _RESOURCES else name
