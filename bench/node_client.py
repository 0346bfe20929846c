"""Usage through the writer of the Node client, in a process of its own."""

import asyncio
import json
import os
import tempfile
from asyncio.subprocess import PIPE, Process
from dataclasses import dataclass, field
from pathlib import Path

from bench.support import load
from bench.support.access import Access
from bench.support.client import Job
from bench.support.full_speed import Sent
from bench.support.load import Load
from generated.tidemark.v1.usage_pb2 import UsageBatch

CLIENT = Path(__file__).resolve().parents[1] / "clients" / "node"


def is_installed() -> bool:
    """Whether `make node` has installed and compiled the client."""
    return (CLIENT / "dist" / "index.js").exists() and (CLIENT / "node_modules" / ".package-lock.json").exists()


@dataclass
class WriteInNode(Job[tuple[Sent, float]]):
    """Sends events with a writer of the Node client. The result is what it did, and its seconds of CPU."""

    access: Access
    events: Load
    _process: list[Process] = field(default_factory=list)

    async def prepare(self) -> None:
        """Starts Node, which reads the events and connects."""
        batch = UsageBatch(events=[load.message(event) for event in self.events.make()])
        key = {"TIDEMARK_API_KEY": self.access.key} if self.access.key else {}
        with tempfile.NamedTemporaryFile() as file:
            file.write(batch.SerializeToString())
            file.flush()
            process = await asyncio.create_subprocess_exec(
                *("node", "bench/writes.js", file.name),
                cwd=CLIENT,
                env={**os.environ, "TIDEMARK_SERVER": self.access.server, **key},
                stdin=PIPE,
                stdout=PIPE,
            )
            self._process = [process]
            if await self._line() != "ready":
                raise RuntimeError("bench/writes.js did not begin")

    async def run(self) -> tuple[Sent, float]:
        """Sends all events; the measured time ends with the last acknowledgement."""
        [process] = self._process
        assert process.stdin is not None
        process.stdin.write(b"\n")
        found = json.loads(await self._line())
        await process.wait()
        return Sent(found["seconds"], found["accepted"], found["transitions"]), found["cpu"]

    async def _line(self) -> str:
        [process] = self._process
        assert process.stdout is not None
        return (await process.stdout.readline()).decode().strip()
