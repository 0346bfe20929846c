"""A run of random faults, and the times that recovery took, by kind of fault."""

import asyncio
import random
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Generic

from tests.support.faults.kinds import Kind
from tests.support.faults.stage import D, Stage, stage, streaming
from tests.support.faults.tally import Tally, tally

BETWEEN = 0.5  # seconds, at most, from the recovery to the next fault


class FaultRun(Generic[D]):
    """The faults of one run. recoveries: seconds, by the name of the kind, in the order of the faults."""

    def __init__(
        self,
        number: int,
        seed: int,
        folder: Path,
        kinds: Sequence[Kind[D]],
        database: Callable[[], AbstractAsyncContextManager[D]],
    ) -> None:
        """kinds: of which the faults are. database: opens a migrated one."""
        self.recoveries: dict[str, list[float]] = defaultdict(list)
        self.not_possible: list[str] = []
        self._number = number
        self._randomness = random.Random(seed)
        self._folder = folder
        self._kinds = kinds
        self._database = database

    async def run(self) -> Tally:
        """Injects the faults one after the other, each after the recovery from the one before."""
        async with stage(self._folder, self._randomness, self._database()) as one:
            async with streaming(one):
                await one.recovered()
                for kind in self._chosen(one):
                    await self._inject(one, kind)
                    await asyncio.sleep(self._randomness.uniform(0, BETWEEN))
            return await tally(one)

    def _chosen(self, stage: Stage[D]) -> Sequence[Kind[D]]:
        """So many kinds in a random order, each about equally often."""
        possible = [kind for kind in self._kinds if kind.is_possible(stage.database)]
        self.not_possible = [kind.name for kind in self._kinds if kind not in possible]
        chosen: list[Kind[D]] = []
        while len(chosen) < self._number:
            chosen += self._randomness.sample(possible, min(len(possible), self._number - len(chosen)))
        return chosen

    async def _inject(self, stage: Stage[D], kind: Kind[D]) -> None:
        try:
            injected = await kind.inject(stage)
            await stage.recovered()
        except AssertionError as error:
            raise AssertionError(
                f"after {kind.name!r}, fault {sum(map(len, self.recoveries.values())) + 1}: {error}"
            ) from error
        self.recoveries[kind.name].append(asyncio.get_running_loop().time() - injected.since)
        if injected.afterwards is not None:
            await injected.afterwards()


def table(kinds: Sequence[Kind[Any]], recoveries: Mapping[str, Sequence[float]]) -> list[str]:
    """The times of recovery as a table in Markdown, in the order of the kinds."""
    lines = ["| fault | times | recovery, median | worst |", "|---|---|---|---|"]
    for kind in kinds:
        if seconds := recoveries.get(kind.name):
            median, worst = statistics.median(seconds), max(seconds)
            lines.append(f"| {kind.name} | {len(seconds)} | {median:.1f} s | {worst:.1f} s |")
    return lines
