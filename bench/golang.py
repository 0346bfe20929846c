"""Usage through the writer of the Go client, where Go is installed."""

import asyncio
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from bench.support import load
from bench.support.access import Access
from bench.support.client import Job
from bench.support.full_speed import Sent
from bench.support.load import Load
from tests.support.clients.golang import BUILD, find_go
from tidemark_client.usage.batches import varint


def built() -> Path | None:
    """The program that sends usage; None where this machine cannot build it."""
    go = find_go()
    if isinstance(go, str):
        return None
    program = BUILD / "load"
    go.run("build", "-o", str(program), "./internal/load")
    return program


@dataclass
class WriteInGo(Job[tuple[Sent, float]]):
    """Sends a round in a process of Go, with the seconds of CPU of that process."""

    access: Access
    program: Path
    events: Load
    _input: bytes = field(default=b"", repr=False)

    async def prepare(self) -> None:
        """Makes the input: each message after its length."""
        encoded = [load.message(event).SerializeToString() for event in self.events.make()]
        self._input = b"".join(varint(len(one)) + one for one in encoded)

    async def run(self) -> tuple[Sent, float]:
        """Sends all events. The program measures from the first event to the last acknowledgement."""
        process = await asyncio.create_subprocess_exec(
            self.program,
            env={**os.environ, "TIDEMARK_SERVER": self.access.server, "TIDEMARK_API_KEY": self.access.key},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate(self._input)
        if process.returncode != 0:
            raise ChildProcessError(f"{self.program} ended with {process.returncode}")
        found = json.loads(printed)
        return Sent(found["seconds"], found["accepted"], found["transitions"]), found["cpu_seconds"]
