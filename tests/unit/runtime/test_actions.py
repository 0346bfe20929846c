"""Log actions: the product's log lines use all of them, and no other."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from runtime.actions import LogAction

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("cli", "engine", "evaluator", "gateway", "notifier", "runtime", "server", "store", "webhooks")
OF_BACKGROUND_TASKS = ("runtime/tasks.py", "engine/job_task.py")  # log the actions that each task gives them


@cache
def trees() -> list[tuple[str, ast.Module]]:
    """The modules that can log an action, by their paths."""
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if '"action"' in (source := path.read_text()) or "LogAction" in source:
                found.append((path.relative_to(ROOT).as_posix(), ast.parse(source)))
    return found


def actions(tree: ast.Module) -> Iterator[ast.expr]:
    """The values of `action` in the dictionaries that calls take as `extra`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "action":
                    yield value


def test_a_log_line_names_its_action_by_the_enum() -> None:
    found = [
        f"{path}:{value.lineno}: {ast.unparse(value)}"
        for path, tree in trees()
        if path not in OF_BACKGROUND_TASKS
        for value in actions(tree)
        if not ast.unparse(value).startswith("LogAction.")
    ]
    assert found == []


def test_each_action_is_used() -> None:
    used = {
        node.attr
        for _, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "LogAction"
    }
    assert set(LogAction.__members__) == used


def test_an_action_of_two_words_is_written_with_a_dot_or_is_one_of_the_old_ones() -> None:
    old = {"not_serving", "not_ready", "cut_off", "internal_error", "answer_too_large"}
    assert {action for action in LogAction if "_" in action.partition(".")[0]} == old | {"operator_event.failed"}
