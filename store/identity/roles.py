"""Roles: what an API key may be used for."""

from collections.abc import Iterable
from enum import StrEnum


class Role(StrEnum):
    """A role, by its name in the contract without the prefix. `tidemark.v1.Role` says what each may do."""

    READER = "READER"
    INGESTER = "INGESTER"
    EDITOR = "EDITOR"
    ADMIN = "ADMIN"


ALL = frozenset({Role.ADMIN})
_INCLUDED = {Role.EDITOR: {Role.READER}, Role.ADMIN: set(Role)}


def allows(held: Iterable[Role], required: Role) -> bool:
    """Whether one of these roles is the required one or includes it."""
    return any(role is required or required in _INCLUDED.get(role, ()) for role in held)
