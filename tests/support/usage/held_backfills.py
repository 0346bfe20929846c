"""Backfills of servers, held back until a test releases them."""

import pytest

from engine.backfill.backfills import Backfills


class HeldBackfills:
    """Whether backfills are held back."""

    def __init__(self) -> None:
        self.released = False

    def release(self) -> None:
        """Lets backfills run from now on."""
        self.released = True


@pytest.fixture
def held_backfills(monkeypatch: pytest.MonkeyPatch) -> HeldBackfills:
    """Holds back the backfills of servers, so that an event evaluates the gauge first."""
    held, run_once = HeldBackfills(), Backfills.run_once

    async def unless_held(backfills: Backfills) -> bool:
        return held.released and await run_once(backfills)

    monkeypatch.setattr(Backfills, "run_once", unless_held)
    return held
