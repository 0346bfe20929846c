"""Where a replay is, in a file: how many rows are acknowledged, so that the next run continues after them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

SUFFIX = ".replay-state"
SAVE_INTERVAL = 0.5  # seconds
_VERSION = 1


class BadState(Exception):
    """The file cannot be used as a state; the message says why."""


@dataclass(frozen=True, slots=True)
class State:
    """What is acknowledged.

    rows: of the file, from its first. digest: of these rows. options: a digest of the options that make events of
    rows. rejected_bytes: the length of the file of rejected rows.
    """

    rows: int = 0
    digest: str = ""
    options: str = ""
    rejected_bytes: int = 0


def load(path: Path, options: str) -> State:
    """The state in a file; the beginning where there is no such file. Raises BadState."""
    try:
        stated = json.loads(path.read_bytes())
    except FileNotFoundError:
        return State(options=options)
    except OSError as error:
        raise BadState(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadState(f"{path} is not the state of a replay") from None
    if not isinstance(stated, dict) or stated.pop("version", None) != _VERSION:
        raise BadState(f"{path} is not the state of a replay of this version")
    try:
        found = State(**stated)
    except TypeError:
        raise BadState(f"{path} is not the state of a replay of this version") from None
    if found.options != options:
        raise BadState(f"{path} is of a replay with other options: they would make other events of the same rows")
    return found


class StateFile:
    """Saves states, not too often: what is acknowledged after the last one is sent again, and counts once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next state."""
        return time.monotonic() >= self._next

    def save(self, state: State) -> None:
        """Saves the state: after a crash the file has this state or the one before. Raises OSError."""
        content = json.dumps({"version": _VERSION, **asdict(state)}) + "\n"
        beside = self.path.with_name(f"{self.path.name}.new")
        with beside.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)
        self._next = time.monotonic() + SAVE_INTERVAL
