"""What the table of resources is made of. It knows nothing of gRPC or of the contract, so that it loads at once."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

Shown = Callable[[Any], str]  # of a message of the contract: the text of a cell


class Form(Enum):
    """How the field of a column is shown."""

    TEXT = "text"  # may be cut at its end where the terminal is narrow
    ID = "id"  # is never cut, as long as the terminal has room for the column
    NUMBER = "number"  # right-aligned
    STATE = "state"  # the value of an enum, with the colour of its meaning
    TIME = "time"
    LIST = "list"  # values of an enum, or texts, separated by commas
    MAP = "map"  # key=value, separated by commas


@dataclass(frozen=True)
class Column:
    """A column of a table. value: the path of a field, such as `usage.metric_id`, or a function of the message.

    rank: 0 for a column that every table has; where a terminal is too narrow, columns of the highest rank go first.
    """

    heading: str
    value: str | Shown
    form: Form = Form.TEXT
    rank: int = 0


@dataclass(frozen=True)
class Verb:
    """A command of a resource.

    method: the RPC, such as `AlertService/ListAlerts`. arguments: the paths of the fields of the request that are
    positional; None: the ids of the resource, or for a list the required ones. item: the field of the answer that is
    shown; empty: the one with messages. columns: of its table, if they are not those of the resource. irreversible:
    what the command does that cannot be undone, in the words of the question before it, with fields of the request
    in braces; empty: it can be undone. hidden: the paths of fields that have no option. inside: a field of the
    request whose fields have options without its name. done: the word of the report, such as `archived`. summary: the
    first line of the help; empty: that of the contract.
    """

    name: str
    method: str
    arguments: tuple[str, ...] | None = None
    item: str = ""
    columns: tuple[Column, ...] = ()
    irreversible: str = ""
    hidden: tuple[str, ...] = ()
    inside: str = ""
    done: str = ""
    summary: str = ""


@dataclass(frozen=True)
class Resource:
    """A group of commands. name: of the group. one: a single resource, for messages. ids: the fields that name it.

    put: creates or replaces it as a whole; the commands `put`, `create` and `update` come from this RPC. get: the RPC
    that reads one, which `create` and `update` need.
    """

    name: str
    one: str
    summary: str
    ids: tuple[str, ...]
    columns: tuple[Column, ...]
    verbs: tuple[Verb, ...]
    field: str = ""  # of requests that have the resource as a whole, and of answers
    put: str = ""
    get: str = ""
    commands: tuple[tuple[str, str], ...] = ()  # written by hand: name, and `module:attribute`
