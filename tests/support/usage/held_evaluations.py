"""Evaluations of changed customers, held back as if the process ended after the commit of each change."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from engine.puts.customer_evaluations import CustomerEvaluations


@contextmanager
def evaluations_held() -> Iterator[None]:
    """Within the block, changes of customers are committed and not evaluated, by no server."""

    async def nothing(*arguments: object) -> None:
        pass

    async def not_any(*arguments: object) -> bool:
        return False

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(CustomerEvaluations, "evaluate", nothing)
        patched.setattr(CustomerEvaluations, "run_once", not_any)
        yield


NOTED = "SELECT customer_id FROM customer_evaluation WHERE organization_id = %(organization_id)s ORDER BY customer_id"


def ids(rows: Sequence[tuple[object, ...]]) -> list[object]:
    """The first column."""
    return [row[0] for row in rows]
