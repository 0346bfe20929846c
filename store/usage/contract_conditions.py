"""Filters by custom fields of contracts as SQL conditions on rows of `event`.

The contract of an event is its subscription. `evaluator.routing` selects events in the same way.
"""

from collections.abc import Sequence
from typing import Any

from psycopg.types.json import Jsonb

_CONDITION = """EXISTS (
    SELECT 1 FROM subscription c
    WHERE c.organization_id = e.organization_id AND c.customer_id = e.customer_id
        AND c.subscription_id = e.subscription_id AND c.custom_fields @> %(contract_fields)s::jsonb
)"""


def condition(fields: Sequence[tuple[str, str]]) -> str:
    """A condition that events `e` meet if their subscription has all of the fields. `parameters` has its values."""
    return _CONDITION if fields else "true"


def parameters(fields: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The parameters of `condition`."""
    return {"contract_fields": Jsonb(dict(fields))} if fields else {}
