"""Balances: what customers were granted, and what each kind of grant is called."""

from dataclasses import dataclass
from enum import StrEnum


class BalanceKind(StrEnum):
    """What a balance was granted as."""

    COMMIT = "COMMIT"
    CONTRACT_CREDIT = "CONTRACT_CREDIT"
    CREDIT_GRANT = "CREDIT_GRANT"
    SEAT_CREDIT = "SEAT_CREDIT"
    LICENSE_ALLOTMENT = "LICENSE_ALLOTMENT"


@dataclass(frozen=True)
class Seat:
    """One value of a property of usage events."""

    key: str
    value: str
