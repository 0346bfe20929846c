"""The JSON form of an alert state, as the column alert_state.reached stores it."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from evaluator.amounts import format_decimal
from evaluator.transitions import AlertState, Reached


def state_json(state: AlertState) -> dict[str, Any]:
    """The state as JSON: for each reached threshold, by its key, the level and the time."""
    shown = {}
    for key, reached in state.reached.items():
        entry: dict[str, Any] = {"level": format_decimal(reached.level), "time": reached.time.isoformat()}
        if reached.silent:
            entry["silent"] = True
        if reached.recurrences:
            entry["rungs"], entry["silent_rungs"] = reached.recurrences, reached.silent_recurrences
        shown[key] = entry
    return shown


def state_from_json(stored: dict[str, Any]) -> AlertState:
    """The state that `state_json` returned as JSON."""
    return AlertState(
        {
            key: Reached(
                Decimal(entry["level"]),
                datetime.fromisoformat(entry["time"]),
                entry.get("silent", False),
                entry.get("rungs", 0),
                entry.get("silent_rungs", 0),
            )
            for key, entry in stored.items()
        }
    )
