"""Puts: a fact replaces the stored one, unless the stored one has a later as_of_time."""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

Stored = TypeVar("Stored")


@dataclass(frozen=True)
class Put(Generic[Stored]):
    """The result of a put.

    stored: what is stored after the put. superseded: a newer fact is stored, and the put changed nothing. changed:
    the put changed more than as_of_time. epoch: the organization's new epoch if the put raised it; the transaction
    then holds the organization's lock exclusively. previous: what was stored before, of facts whose old values are
    shown in the audit log. noted: false, if it is known that its customer needs no evaluation.
    """

    stored: Stored
    superseded: bool = False
    changed: bool = False
    epoch: int | None = None
    previous: Stored | None = None
    noted: bool = True


@dataclass(frozen=True)
class UnlockedPut(Generic[Stored]):
    """The result of a put that needed no lock.

    noted: the customer still has to be evaluated on an earlier put. previous: what was stored before, if the put
    changes more than as_of_time. With `change=False` such a put is not made yet.
    """

    stored: Stored
    superseded: bool
    noted: bool
    previous: Stored | None = None


def is_newer(stored_time: datetime | None, as_of_time: datetime) -> bool:
    """Whether the stored fact is newer than a fact of `as_of_time`. After implicit registration it is never newer."""
    return stored_time is not None and stored_time > as_of_time


_TIMES = ("as_of_time", "update_time")


def differs(previous: object, stored: object) -> bool:
    """Whether a put has changed more than the times of a stored fact. previous: None if there was none."""
    if previous is None:
        return True
    before, after = vars(previous), vars(stored)
    return any(before[name] != value for name, value in after.items() if name not in _TIMES)
