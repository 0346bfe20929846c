"""Rows as one JSON text are the same, made in slices or at once."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest

from runtime import turns
from store.postgres.json_rows import json_rows


def row(number: int) -> dict[str, Any]:
    return {
        "id": UUID(int=number),
        "value": Decimal(number) / 10**18,
        "time": datetime.max.replace(tzinfo=UTC),
        "text": f'ü "{number}" \\ \t',
        "nothing": None,
        "object": {"level": "1"},
    }


@pytest.mark.parametrize("number", [0, 1, 2, 1_000])
async def test_rows_in_slices_are_the_rows_at_once(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)  # each row ends a slice
    rows = [row(each) for each in range(number)]
    assert await json_rows(iter(rows), 1) == orjson.dumps(rows, default=str).decode()


async def test_other_tasks_run_between_the_slices_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "SLICE", 0.0)
    passes, seen = 0, list[int]()

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(5):
            seen.append(passes)
            yield {"number": number}

    writing = asyncio.create_task(json_rows(rows(), 1))
    while not writing.done():
        passes += 1
        await asyncio.sleep(0)
    assert len(set(seen)) >= 4, "the first pause finds its turn at once"
