"""Ids that are drawn at random."""

import secrets

from evaluator.ids import ID_BYTES, id_of


def random_id(prefix: str) -> str:
    """A new id with that prefix, such as `whe_`."""
    return id_of(prefix, secrets.token_bytes(ID_BYTES))
