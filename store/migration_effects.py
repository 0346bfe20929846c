"""What the statements of a migration do to a database in use: which table each locks, how, and for how much work.

The forms are those of PostgreSQL's ALTER TABLE, CREATE INDEX and a few others. A form that is not known counts as the
worst: no other session may use the table while all of it is read.
"""

import enum
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


class Lock(enum.IntEnum):
    """The locks of tables that statements take, from the weakest to the strongest."""

    NONE = 0  # only tables that no server knows yet
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @property
    def mode(self) -> str:
        """Its name in the documentation of PostgreSQL."""
        return self.name.replace("_", " ")

    @property
    def stops_writes(self) -> bool:
        """Whether servers wait that write to the table."""
        return self >= Lock.SHARE

    @property
    def stops_reads(self) -> bool:
        """Whether servers wait that read the table."""
        return self is Lock.ACCESS_EXCLUSIVE


class Work(enum.Enum):
    """What a statement does while it holds its lock."""

    CATALOGUE = "changes its definition"
    SCAN = "reads all of it"
    INDEX = "reads all of it and builds an index"
    ROWS = "changes up to all of its rows"
    REWRITE = "writes all of it anew"
    UNKNOWN = "is a statement that this plan does not know"


@dataclass(frozen=True)
class Effect:
    """One statement on one table.

    table: None for a statement that touches no existing table. concurrent: it runs outside of a transaction, beside
    writers, however long it takes. breaks: why servers of the version before may fail after it; empty if they do not.
    """

    statement: str
    table: str | None = None
    lock: Lock = Lock.NONE
    work: Work = Work.CATALOGUE
    concurrent: bool = False
    breaks: str = ""
    index: str | None = None  # the index whose table is locked, where a statement names no table


_PIECE = re.compile(r"--[^\n]*|'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|[^-'$;]+|.", re.DOTALL)
_NAME = r'(?:IF (?:NOT )?EXISTS )?(?:ONLY )?"?(?P<name>[\w.]+)"?'
# A foreign key gets triggers on the table that it names.
_REFERENCE = re.compile(r"\bREFERENCES (?P<name>\w+)", re.I)
_SHOWN = 90  # characters of a statement
# Functions that PostgreSQL evaluates for each row, and what needs a value of its own in each row.
_VOLATILE = re.compile(
    r"\b(random|gen_random_uuid|clock_timestamp|nextval|uuidv7)\s*\(|\bGENERATED\b|\bSERIAL\b", re.I
)


def effects(sql: str) -> list[Effect]:
    """The effects of one or more statements, without those on tables that the same statements create."""
    created: set[str] = set()
    found = []
    for statement in statements(sql):
        if match := re.match(rf"CREATE (?:UNLOGGED )?TABLE {_NAME}", statement, re.I):
            created.add(match["name"])
        found += [effect for effect in _effects_of(statement) if effect.table not in created]
    return found


def statements(sql: str) -> Iterator[str]:
    """The statements of a text, each on one line and without comments."""
    parts: list[str] = []
    for match in _PIECE.finditer(sql):
        piece = match[0]
        if piece == ";":
            yield from _line(parts)
            parts = []
        elif not piece.startswith("--"):
            parts.append(piece)
    yield from _line(parts)


def _line(parts: Sequence[str]) -> Iterator[str]:
    line = " ".join("".join(parts).split())
    if line:
        yield line


def _effects_of(statement: str) -> list[Effect]:
    if match := re.match(rf"ALTER TABLE {_NAME} (?P<actions>.*)", statement, re.I):
        return [_action(statement, match["name"], action) for action in _split(match["actions"])]
    if re.match(r"CREATE TABLE\b", statement, re.I) and _REFERENCE.search(statement):
        return [
            Effect(_shortened(statement), match["name"], Lock.SHARE_ROW_EXCLUSIVE, Work.CATALOGUE)
            for match in _REFERENCE.finditer(statement)
        ]
    if re.match(r"DO\b", statement, re.I):
        return [effect for inner in _inner_statements(statement) for effect in _effects_of(inner)]
    for pattern, effect in _FORMS:
        if match := pattern.match(statement):
            named = match.groupdict()
            return [
                replace(
                    effect,
                    statement=_shortened(statement),
                    table=named.get("name"),
                    index=named.get("index"),
                )
            ]
    return [Effect(_shortened(statement), None, Lock.ACCESS_EXCLUSIVE, Work.UNKNOWN, breaks="it is not known")]


def _form(pattern: str, lock: Lock, work: Work, *, concurrent: bool = False, breaks: str = "") -> "_Form":
    spaced = pattern.replace(" ", r"\s+").replace("NAME", _NAME.replace(" ", r"\s+"))
    return re.compile(spaced, re.I), Effect("", None, lock, work, concurrent, breaks)


_Form = tuple["re.Pattern[str]", Effect]
_NOTHING = Lock.NONE, Work.CATALOGUE
# The first form that fits. A form without a name of a table locks none that servers use.
_FORMS: tuple[_Form, ...] = (
    _form(r"CREATE TABLE \S+ PARTITION OF NAME", Lock.ACCESS_EXCLUSIVE, Work.CATALOGUE),
    _form(r"CREATE (?:UNLOGGED )?(?:TABLE|SEQUENCE|TYPE|SCHEMA|EXTENSION|STATISTICS)\b", *_NOTHING),
    _form(r"CREATE (?:OR REPLACE )?(?:FUNCTION|VIEW|PROCEDURE)\b", *_NOTHING),
    _form(
        r"CREATE (?:UNIQUE )?INDEX CONCURRENTLY (?:IF NOT EXISTS )?\S+ ON NAME",
        Lock.SHARE_UPDATE_EXCLUSIVE,
        Work.INDEX,
        concurrent=True,
    ),
    _form(
        r"CREATE UNIQUE INDEX (?:IF NOT EXISTS )?\S+ ON NAME", Lock.SHARE, Work.INDEX, breaks="a new rule for rows"
    ),
    _form(r"CREATE INDEX (?:IF NOT EXISTS )?\S+ ON NAME", Lock.SHARE, Work.INDEX),
    _form(
        r"DROP INDEX CONCURRENTLY (?:IF EXISTS )?(?P<index>\w+)",
        Lock.SHARE_UPDATE_EXCLUSIVE,
        Work.CATALOGUE,
        concurrent=True,
    ),
    _form(r"DROP INDEX (?:IF EXISTS )?(?P<index>\w+)", Lock.ACCESS_EXCLUSIVE, Work.CATALOGUE),
    _form(r"DROP TABLE NAME", Lock.ACCESS_EXCLUSIVE, Work.CATALOGUE, breaks="the table is gone"),
    _form(r"TRUNCATE (?:TABLE )?NAME", Lock.ACCESS_EXCLUSIVE, Work.CATALOGUE, breaks="the rows are gone"),
    _form(r"DROP (?:FUNCTION|SEQUENCE|TYPE|VIEW|TRIGGER)\b", *_NOTHING, breaks="something is gone that it may use"),
    _form(r"CREATE (?:OR REPLACE )?TRIGGER .* ON NAME", Lock.SHARE_ROW_EXCLUSIVE, Work.CATALOGUE),
    _form(r"(?:INSERT INTO|UPDATE|DELETE FROM) NAME", Lock.ROW_EXCLUSIVE, Work.ROWS),
    _form(r"LOCK TABLE NAME IN ACCESS EXCLUSIVE MODE", Lock.ACCESS_EXCLUSIVE, Work.CATALOGUE),
    _form(r"ANALYZE NAME", Lock.SHARE_UPDATE_EXCLUSIVE, Work.CATALOGUE),
    _form(r"(?:COMMENT ON|SET|RESET|SELECT)\b", *_NOTHING),
)


def _action(statement: str, table: str, action: str) -> Effect:
    """The effect of one action of ALTER TABLE."""
    shown = _shortened(f"ALTER TABLE {table} {action}") if "," in statement else _shortened(statement)
    for pattern, lock, work, breaks in _ACTIONS:
        if re.match(pattern, action, re.I):
            return Effect(shown, table, lock, work, breaks=breaks)
    if re.match(r"ADD (COLUMN )?", action, re.I):
        work = Work.REWRITE if _VOLATILE.search(action) else Work.CATALOGUE
        filled = re.search(r"\bDEFAULT\b|\bGENERATED\b", action, re.I)
        needs_value = bool(re.search(r"\bNOT NULL\b", action, re.I)) and not filled
        return Effect(shown, table, Lock.ACCESS_EXCLUSIVE, work, breaks="it does not fill it" if needs_value else "")
    return Effect(shown, table, Lock.ACCESS_EXCLUSIVE, Work.UNKNOWN, breaks="it is not known")


_ALL = Lock.ACCESS_EXCLUSIVE
_ACTIONS: tuple[tuple[str, Lock, Work, str], ...] = (
    (r"ADD CONSTRAINT .*FOREIGN KEY.*NOT VALID", Lock.SHARE_ROW_EXCLUSIVE, Work.CATALOGUE, "a new rule for rows"),
    (r"ADD CONSTRAINT .*FOREIGN KEY", Lock.SHARE_ROW_EXCLUSIVE, Work.SCAN, "a new rule for rows"),
    (r"ADD CONSTRAINT .*NOT VALID", _ALL, Work.CATALOGUE, "a new rule for rows"),
    (r"ADD (CONSTRAINT \w+ )?(PRIMARY KEY|UNIQUE) USING INDEX", _ALL, Work.CATALOGUE, ""),
    (r"ADD (CONSTRAINT|PRIMARY KEY|UNIQUE|CHECK|FOREIGN KEY|EXCLUDE)\b", _ALL, Work.SCAN, "a new rule for rows"),
    (r"VALIDATE CONSTRAINT", Lock.SHARE_UPDATE_EXCLUSIVE, Work.SCAN, ""),
    (r"DROP CONSTRAINT", _ALL, Work.CATALOGUE, ""),
    (r"DROP (COLUMN )?", _ALL, Work.CATALOGUE, "the column is gone"),
    (r"ALTER (COLUMN )?\S+ (SET DATA )?TYPE\b", _ALL, Work.REWRITE, "the column has another type"),
    (r"ALTER (COLUMN )?\S+ SET NOT NULL", _ALL, Work.SCAN, "it may not fill the column"),
    (r"ALTER (COLUMN )?\S+ (DROP NOT NULL|(SET|DROP) DEFAULT)", _ALL, Work.CATALOGUE, ""),
    (r"ALTER (COLUMN )?\S+ SET (\(|STATISTICS)", Lock.SHARE_UPDATE_EXCLUSIVE, Work.CATALOGUE, ""),
    (r"ALTER (COLUMN )?\S+ SET (STORAGE|COMPRESSION)\b", _ALL, Work.CATALOGUE, ""),
    (r"RENAME\b", _ALL, Work.CATALOGUE, "a name is another"),
    (r"SET SCHEMA\b", _ALL, Work.CATALOGUE, "the table is elsewhere"),
    (r"(RE)?SET \(", Lock.SHARE_UPDATE_EXCLUSIVE, Work.CATALOGUE, ""),
    (r"ATTACH PARTITION", Lock.SHARE_UPDATE_EXCLUSIVE, Work.SCAN, ""),
    (r"DETACH PARTITION", _ALL, Work.CATALOGUE, "a part of the rows is gone"),
)


def _split(actions: str) -> Iterator[str]:
    """The actions of ALTER TABLE: the text, divided at the commas that are not inside parentheses or quotes."""
    depth, start = 0, 0
    for match in re.finditer(r"'(?:[^']|'')*'|[(),]", actions):
        if match[0] in "()":
            depth += 1 if match[0] == "(" else -1
        elif match[0] == "," and depth == 0:
            yield actions[start : match.start()].strip()
            start = match.end()
    yield actions[start:].strip()


def _inner_statements(block: str) -> Iterator[str]:
    """The statements of a DO block that lock tables; what decides about them is left out."""
    for line in statements(re.sub(r"^.*?\$\w*\$|\$\w*\$.*$", "", block)):
        if match := re.search(r"\b(?:LOCK TABLE|CREATE (?:UNIQUE )?INDEX|ALTER TABLE|UPDATE|DELETE FROM) .*", line):
            yield match[0]


def _shortened(statement: str) -> str:
    return statement if len(statement) <= _SHOWN else statement[: _SHOWN - 1] + "…"
