"""The built image: what is in it, and that it serves as a container without rights and with a read-only file system.

`make image-check` builds it and runs these tests. They take a minute, and need Docker, or another engine with its
commands (CONTAINER_ENGINE), that can get the base image.
"""

import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from tests.support.processes.postgres import own_server
from tests.support.processes.programs import SETTINGS
from tests.support.processes.up import TIMEOUT, eventually

IMAGE = os.environ.get("TIDEMARK_TEST_IMAGE", "")
ENGINE = os.environ.get("CONTAINER_ENGINE") or "docker"
pytestmark = pytest.mark.skipif(not IMAGE, reason="TIDEMARK_TEST_IMAGE names no image: run `make image-check`")

FAULTS = Path(__file__).parents[1] / "support" / "image_faults.py"
USER = "65532:65532"
NO_RIGHTS = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "host")
SOCKET = "/database"  # where a container finds the socket of the database
# As the image has them, but on ports that are free.
ANY_PORTS = {
    "TIDEMARK_LISTEN": "127.0.0.1:0",
    "TIDEMARK_METRICS_LISTEN": "127.0.0.1:0",
    "TIDEMARK_LOG_FORMAT": "json",
}


def engine(*arguments: str, code: int = 0) -> str:
    """Runs a command of the engine, which has to end with that code; returns what it printed."""
    ended = subprocess.run(
        [ENGINE, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=2 * TIMEOUT,
        check=False,
    )
    assert ended.returncode == code, ended.stdout
    return ended.stdout


def inspected(name: str, *kind: str) -> dict[str, Any]:
    """What the engine knows of an image or a container."""
    (found,) = json.loads(engine(*kind, "inspect", name))
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
async def options() -> AsyncIterator[tuple[str, ...]]:
    """The options of a container without rights that uses an empty database."""
    async with own_server() as server:
        url = make_url(server.url)
        folder = Path(str(url.query["host"]))
        # The user of the container is not the one of the database.
        for path, mode in ((folder, 0o755), (folder / ".s.PGSQL.5432", 0o777)):
            path.chmod(mode)
        (folder.parent / "pg_hba.conf").write_text("local all all trust\n")
        with psycopg.connect(server.url) as connection:
            connection.execute("SELECT pg_reload_conf()")
        settings = {
            **SETTINGS,
            **ANY_PORTS,
            "TIDEMARK_DATABASE_URL": f"postgresql://{url.username}@/{url.database}?host={SOCKET}",
        }
        variables = (f"--env={name}={value}" for name, value in settings.items())
        yield (*NO_RIGHTS, f"--volume={folder}:{SOCKET}:ro", *variables)


@contextmanager
def container(options: tuple[str, ...], *command: str) -> Iterator[str]:
    """The name of a container that runs a command in the background."""
    name = f"tidemark-test-{os.getpid()}-{command[0]}"
    engine("run", "--detach", "--name", name, *options, IMAGE, *command)
    try:
        yield name
    finally:
        engine("rm", "--force", name)


def test_the_image_says_how_it_runs() -> None:
    found = inspected(IMAGE, "image")
    config = found["Config"]
    assert config["User"] == USER
    assert (config["Entrypoint"], config["Cmd"]) == (["tidemark"], ["serve"])
    assert config["StopSignal"] == "SIGTERM"
    assert config["ExposedPorts"].keys() == {"50051/tcp", "9464/tcp"}
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert not [one for one in config["Env"] if re.search("PASSWORD|SECRET|KEY|TOKEN|INDEX", one.partition("=")[0])]


def test_the_image_holds_what_runs_and_nothing_else() -> None:
    printed = engine("run", "--rm", *NO_RIGHTS, "--entrypoint", "python", IMAGE, "-c", FAULTS.read_text())
    assert json.loads(printed.splitlines()[-1]) == {}


def test_server_and_notifier_run_without_rights_and_end_at_sigterm(options: tuple[str, ...]) -> None:
    assert "is up to date" in engine("run", "--rm", *options, IMAGE, "migrate")
    created = engine("run", "--rm", *options, IMAGE, "keys", "create", "--organization", "acme")
    (key,) = re.findall(r"^tmk_\S+", created, re.MULTILINE)
    with container(options, "serve", "--workers", "2") as server, container(options, "notify") as notifier:
        eventually(lambda: "monitoring_port" in engine("logs", notifier), lambda: engine("logs", notifier))
        port = listening_port(server)
        call = ("exec", f"--env=TIDEMARK_KEY={key}", f"--env=TIDEMARK_SERVER=127.0.0.1:{port}", server, "tidemark")
        eventually(lambda: serves(call), lambda: engine("logs", server))
        engine(*call, "alerts", "create", "usage-threshold-reached", "--metric", "calls", "--threshold", "10")
        assert "calls" in engine(*call, "alerts", "list")
        for name in (server, notifier):
            assert inspected(name)["HostConfig"]["ReadonlyRootfs"]
            engine("exec", name, "python", "-c", "open('/opt/tidemark/new', 'w')", code=1)
            engine("stop", "--time", "60", name)
            assert inspected(name)["State"]["ExitCode"] == 0, engine("logs", name)


def serves(call: tuple[str, ...]) -> bool:
    """Whether a server says so."""
    return (
        subprocess.run([ENGINE, *call, "health"], capture_output=True, timeout=TIMEOUT, check=False).returncode == 0
    )


def listening_port(server: str) -> int:
    """The port that a server has logged."""
    found: list[str] = []

    def look() -> bool:
        found[:] = re.findall(r'"action": "listen".*?"port": (\d+)', engine("logs", server))
        return bool(found)

    eventually(look, lambda: engine("logs", server))
    return int(found[0])
