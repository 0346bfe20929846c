"""A scan of the store's code for numbers of affected rows that Citus gives otherwise than PostgreSQL.

Of `INSERT … SELECT … ON CONFLICT`, Citus reports the rows that were selected, also those that were there already.
With RETURNING the number is right, because the rows that came back are counted. So the result of such a statement
without RETURNING must not be used at all: nothing else is in it but this number.
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator, Set
from pathlib import Path
from types import ModuleType

import store
from store.tables.placement import Placement, placements
from tests.support.postgres.statement_scan import texts

# An INSERT at the beginning: one in a WITH has no number of its own.
_INSERT_SELECT = re.compile(
    r"^\s*INSERT\s+INTO\s+([a-z_]+)\b(?:(?!\bVALUES\b).)*?\bSELECT\b.*?\bON\s+CONFLICT\b(.*)", re.S
)
_RETURNING = re.compile(r"\bRETURNING\b")
_EACH_ROW_IS_CHANGED = re.compile(r"\bDO\s+UPDATE\b(?!.*\bWHERE\b)", re.S)


def counts_selected_rows(text: str) -> bool:
    """Whether Citus counts rows of the statement that the statement does not change."""
    match = _INSERT_SELECT.search(text)
    if match is None or _RETURNING.search(match[2]) or _EACH_ROW_IS_CHANGED.search(match[2]):
        return False
    return placements().get(match[1]) not in {None, Placement.COORDINATOR_ALONE}


def used_numbers(package: ModuleType = store) -> list[str]:
    """The functions that use the result of such a statement."""
    return list(_used_numbers(package))


def _used_numbers(package: ModuleType) -> Iterator[str]:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if ".migrations" in found.name:
            continue
        module = importlib.import_module(found.name)
        if module.__file__ is None or not module.__file__.endswith(".py"):
            continue
        names = {
            name for name, value in vars(module).items() if any(map(counts_selected_rows, texts(value, found.name)))
        }
        yield from (f"{found.name}.{one}" for one in functions_that_use(Path(module.__file__).read_text(), names))


def functions_that_use(source: str, names: Set[str]) -> list[str]:
    """The functions of a module that use the result of one of the statements of these names.

    A result is not used where the call with the statement is a line of its own. SQLAlchemy writes the same statement
    in a function that has `from_select`.
    """
    return [
        function.name
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and (_uses(function, names) or _counts_what_it_composes(function))
    ]


def _uses(function: ast.FunctionDef | ast.AsyncFunctionDef, names: Set[str]) -> bool:
    known, unused = set(names), set[int]()
    for line in ast.walk(function):
        if isinstance(line, ast.Expr):
            unused |= {id(node) for node in ast.walk(line)}
        elif isinstance(line, ast.Assign) and _names_the_statement(line.value, known):
            known |= {target.id for target in line.targets if isinstance(target, ast.Name)}
            unused |= {id(node) for node in ast.walk(line)}
    return any(
        isinstance(node, ast.Name) and node.id in known and id(node) not in unused for node in ast.walk(function)
    )


def _names_the_statement(value: ast.expr, names: Set[str]) -> bool:
    """Whether a value is one of the statements, completed but not executed."""
    nodes = list(ast.walk(value))
    named = any(isinstance(node, ast.Name) and node.id in names for node in nodes)
    return named and not any(isinstance(node, ast.Await) for node in nodes)


def _counts_what_it_composes(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    attributes = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    return (
        {"from_select", "rowcount"} <= attributes
        and "returning" not in attributes
        and not attributes.isdisjoint({"on_conflict_do_nothing", "on_conflict_do_update"})
    )
