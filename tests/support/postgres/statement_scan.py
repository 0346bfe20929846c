"""A scan of the store's statements for forms that Citus cannot execute on distributed tables; it needs no cluster.

It reads the constants of all modules, with what they are composed of, and the texts inside of functions. Of `Forms`
it reads the form for a cluster. The rules are about tables by their placements, so that a new table is scanned with
its statements. ONE_SERVER names the statements that are only executed where no table is distributed.
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from sqlalchemy import ClauseElement, Table, TextClause

import store
from store.postgres.distributed import Forms
from store.tables.placement import DISTRIBUTION_COLUMN, Placement, placements

_KEYWORD = re.compile(r"\b(SELECT|INSERT INTO|UPDATE|DELETE FROM)\b")
_WORD = re.compile(r"SELECT|INSERT|UPDATE|DELETE")  # of any statement
_COMMENT = re.compile(r"--[^\n]*")
_TABLE = re.compile(r"\b(?:FROM|JOIN|UPDATE|INTO|USING)\s+(?:ONLY\s+)?([a-z_]+)\b(?!\s*\()|,\s*([a-z_]+)\s+[a-z]\b")
_ALIAS = re.compile(r"\b(?:FROM|JOIN|UPDATE|INTO|USING)\s+([a-z_]+)\b(?:\s+(?:AS\s+)?(?!ON\b|SET\b)([a-z]+)\b)?")
_CTE = re.compile(r"\b([a-z_]+)(?:\s*\([a-z_, ]+\))?\s+AS\s+(?:MATERIALIZED\s+)?\(")
_ONE_CUSTOMER = re.compile(rf"\b{DISTRIBUTION_COLUMN}\s*=\s*(?:%\(\w+\)s|%s|:\w+)")
_ROW_LOCK = re.compile(r"\bFOR\s+(?:NO KEY UPDATE|UPDATE|KEY SHARE|SHARE)\b")
_LATERAL = re.compile(r"\bLATERAL\s*\(")
_BOUNDED = re.compile(r"\bLIMIT\b|\b(?:count|sum|max|min|array_agg|jsonb_agg)\s*\(")
_FUNCTION_ROWS = re.compile(r"\b(?:FROM|JOIN)\s+(?:unnest|string_to_table|json_to_recordset|jsonb_to_recordset)\s*\(")
_CORRELATED = re.compile(r"(?:EXISTS\s*|[,(]\s*)\(\s*SELECT\b")
_NO_COLUMNS = re.compile(r"\bSELECT\s+FROM\s+([a-z_]+)\b")
_RETURNING = re.compile(r"\bRETURNING\b")
_UPSERT = re.compile(r"\bDO UPDATE SET\b")
_TIME = re.compile(r"\b(?:now|clock_timestamp|statement_timestamp|transaction_timestamp|random)\s*\(")
# A day or month later, by the TimeZone of a node, and a text by its DateStyle: Citus opens sessions with those.
_LATER = re.compile(r",\s*'UTC'\)\s*[+-]")
_TEXT_OF_TIME = re.compile(r"\w+_(?:time|start|end)\b(?:\s+END)?\)*(?:::text|\s+AS\s+text)\b")
_APART = (Placement.COORDINATOR, Placement.COORDINATOR_ALONE)


def statements(package: ModuleType = store) -> Iterator[tuple[str, str]]:
    """The texts of statements with their places: the module below `store` and the constant, or the line."""
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".migrations" in found.name or found.name.startswith("store.citus"):
            continue
        module = importlib.import_module(found.name)
        place = found.name.removeprefix("store.")
        constants, plain = dict[str, str](), list[str]()
        for name, value in vars(module).items():
            if isinstance(value, Forms):
                plain.append(value.plain.decode())
            if not name.startswith("__"):
                constants |= {f"{place}.{name}": text for text in texts(value, module.__name__)}
        yield from (
            (name, text) for name, text in constants.items() if not any(text.strip() in form for form in plain)
        )
        if module.__file__ is None or not module.__file__.endswith(".py"):
            continue
        known = {text.strip() for text in constants.values()}
        yield from _within_functions(place, Path(module.__file__).read_text(), known)


def texts(value: object, module: str, depth: int = 0) -> Iterator[str]:
    """The statements in a constant. Of two forms, the one for a cluster."""
    if isinstance(value, Forms):
        yield value.cluster.decode()
    elif isinstance(value, TextClause):
        yield value.text
    elif isinstance(value, bytes | str):
        text = value.decode(errors="replace") if isinstance(value, bytes) else value
        if _KEYWORD.search(text):
            yield text
    elif isinstance(value, Table | ClauseElement | type):
        return
    elif isinstance(value, Mapping) and depth < 2:
        for one in value.values():
            yield from texts(one, module, depth + 1)
    elif isinstance(value, tuple | list | set | frozenset) and depth < 2:
        for one in value:
            yield from texts(one, module, depth + 1)
    elif is_dataclass(value) and depth < 2 and type(value).__module__.startswith("store."):
        for one in fields(value):
            yield from texts(getattr(value, one.name, None), module, depth + 1)


def _within_functions(place: str, source: str, known: set[str]) -> Iterator[tuple[str, str]]:
    if _WORD.search(source) is None:
        return
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        documentation = ast.get_docstring(function, clean=False)
        for node in ast.walk(function):
            text = None
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(one.value) if isinstance(one, ast.Constant) else "x" for one in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                text = node.value if isinstance(node.value, str) else node.value.decode(errors="replace")
            if text and text != documentation and text.strip() not in known and _KEYWORD.search(text):
                yield f"{place}:{function.name}", text


def row_locks_without_customer(package: ModuleType = store) -> list[str]:
    """Functions that lock rows of a distributed table with SQLAlchemy, and name no single customer."""
    return [f"{place}.{name}" for place, source in _sources(package) for name in locks_of_several(source)]


@cache
def _sources(package: ModuleType) -> list[tuple[str, str]]:
    found = []
    for one in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".migrations" not in one.name:
            file = importlib.import_module(one.name).__file__
            if file is not None and file.endswith(".py"):
                found.append((one.name, Path(file).read_text()))
    return found


def functions_in_upserts(package: ModuleType = store) -> list[str]:
    """Functions whose upsert, written by SQLAlchemy, calls a function for the rows that are there: see `offences`."""
    return [f"{place}.{name}" for place, source in _sources(package) for name in upserts_with_functions(source)]


def upserts_with_functions(source: str) -> list[str]:
    """The functions of a module that do so."""
    if "on_conflict_do_update" not in source:
        return []
    return [
        function.name
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("on_conflict_do_update")
        if any("func." in ast.unparse(argument) for argument in (*call.args, *(one.value for one in call.keywords)))
    ]


def locks_of_several(source: str) -> list[str]:
    """The functions of a module that do so."""
    if "with_for_update" not in source:
        return []
    found = []
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.unparse(function)
            names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
            if "with_for_update" in text and f".{DISTRIBUTION_COLUMN} ==" not in text and names & _by_customer():
                found.append(function.name)
    return found


@cache
def _placements() -> Mapping[str, Placement]:
    """`placements`, which sorts all tables, once."""
    return placements()


@cache
def _by_customer() -> set[str]:
    return {name for name, placement in _placements().items() if placement is Placement.BY_CUSTOMER}


@cache
def offences(text: str) -> list[str]:
    """What of a statement cannot be executed on distributed tables."""
    text = _COMMENT.sub("", text)
    names = _tables(text)
    distributed = sorted(names & _by_customer())
    known = sorted(name for name in names if _placements()[name] is not Placement.COORDINATOR_ALONE)
    if known and any(_TIME.search(changed) for changed in _upserts(text)):
        return [f"changes {', '.join(known)} on a conflict by a function of the time, and not by `excluded`"]
    if not distributed:
        return []
    return [offence for offence in _offences(text, names, ", ".join(distributed)) if offence]


def _offences(text: str, names: set[str], distributed: str) -> Iterable[str]:
    of_one = _ONE_CUSTOMER.search(text) is not None
    apart = sorted(name for name in names if _placements()[name] in _APART)
    if apart and _joined_apart(text, set(apart)):
        yield f"reads or writes {distributed} together with {', '.join(apart)}, which lie apart"
    if _ROW_LOCK.search(text) and not of_one:
        yield f"locks rows of {distributed} without naming one customer"
    if re.search(r"\bWITH RECURSIVE\b", text) and not of_one:
        yield f"is recursive over {distributed} without naming one customer"
    if any(_BOUNDED.search(block) and _tables(block) & _by_customer() for block in _blocks(text)) and not of_one:
        yield f"has a lateral subquery with a limit or an aggregate over {distributed}"
    if re.search(r"\bctid\b(?!::)", text) and not of_one:
        yield f"finds rows of {distributed} by ctid"
    if set(_NO_COLUMNS.findall(text)) & _by_customer():
        yield f"selects no column of {distributed}: write SELECT 1, because Citus gives such rows no type"
    if any(_tables(subquery) & _by_customer() for subquery in _returned(text)):
        yield "has a subquery in RETURNING"
    if _LATER.search(text):
        yield "adds to a time with a zone: nodes have a TimeZone of their own, so truncate a time AT TIME ZONE 'UTC'"
    if _TEXT_OF_TIME.search(text):
        yield "makes a text of a time: nodes have a DateStyle of their own, so write json_build_array(…)->>0"
    if _FUNCTION_ROWS.search(text) and not of_one and _depends_on_function(text):
        yield f"has a correlated subquery over {distributed} for each row of a function"


def _tables(text: str) -> set[str]:
    ctes = set(_CTE.findall(text))
    return {name for pair in _TABLE.findall(text) for name in pair if name in _placements() and name not in ctes}


def _joined_apart(text: str, apart: set[str]) -> bool:
    """Whether one SELECT reads both kinds of tables, or a subquery of one kind depends on a row of the other.

    Citus executes other parts one after the other, and sends the rows of one along with the next.
    """
    return any(
        (_tables(part) & apart and _tables(part) & _by_customer()) or _depends_across(part, nested, apart)
        for part, nested in _selects(text)
    )


def _selects(text: str) -> Iterator[tuple[str, list[str]]]:
    """The SELECTs of a statement without what stands in parentheses inside of them, and those parts."""
    direct, nested, index = "", list[str](), 0
    while index < len(text):
        if text[index] == "(":
            inside = _inside(text, index + 1)
            if re.search(r"\bSELECT\b", inside):
                yield from _selects(inside)
                if not re.search(r"\bAS\s+(?:MATERIALIZED\s+)?$", direct):
                    nested.append(inside)
                direct += "()"
            else:
                direct += f"({inside})"
            index += len(inside) + 2
        else:
            direct += text[index]
            index += 1
    for part in re.split(r"\bUNION(?: ALL)?\b", direct):
        yield part, nested


def _depends_across(part: str, nested: list[str], apart: set[str]) -> bool:
    """Whether a subquery names a column of a table of the other kind outside of it."""
    for kind, other in ((apart, _by_customer()), (_by_customer(), apart)):
        names = {alias or table for table, alias in _ALIAS.findall(part) if table in kind}
        if names and any(
            _tables(one) & other and re.search(rf"\b(?:{'|'.join(names)})\.[a-z_]+\b", one) for one in nested
        ):
            return True
    return False


def _blocks(text: str) -> Iterator[str]:
    """The lateral subqueries of a statement."""
    for match in _LATERAL.finditer(text):
        yield _inside(text, match.end())


def _inside(text: str, start: int) -> str:
    depth = 1
    for index in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[index], 0)
        if depth == 0:
            return text[start:index]
    return text[start:]


def _upserts(text: str) -> Iterator[str]:
    """What is done with the rows that are there already."""
    for match in _UPSERT.finditer(text):
        yield _RETURNING.split(_inside(text, match.end()))[0]


def _returned(text: str) -> Iterator[str]:
    """The subqueries in RETURNING."""
    for match in _RETURNING.finditer(text):
        returned = _inside(text, match.end())
        for subquery in re.finditer(r"\(\s*SELECT\b", returned):
            yield _inside(returned, subquery.end())


def _depends_on_function(text: str) -> bool:
    """Whether the rows come from a function only, and a subquery for each of them reads a distributed table."""
    subqueries = [_inside(text, match.end()) for match in _CORRELATED.finditer(text)]
    outer = text
    for subquery in subqueries:
        outer = outer.replace(subquery, "")
    return not _tables(outer) & _by_customer() and any(_tables(one) & _by_customer() for one in subqueries)
