"""`tidemark health` as a real process, against a server with and without TLS, and against nothing."""

import asyncio
import re
from pathlib import Path

import pytest

from tests.support.documented import blocks
from tests.support.processes.programs import Programs
from tests.support.processes.up import run
from tests.support.server.certificates import HOST, Authority


async def health(folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of the command, and what it printed."""
    found = await asyncio.to_thread(run, folder, "health", *arguments, TIDEMARK_SERVER="127.0.0.1:1")
    assert "Traceback" not in found.stderr
    return found.returncode, found.stdout + found.stderr


async def test_health_of_a_serving_process_is_0_and_that_of_an_absent_one_is_1(
    programs: Programs, tmp_path: Path
) -> None:
    server, notifier = await asyncio.gather(
        programs.serve(METRICS_LISTEN="127.0.0.1:0"), programs.notify(METRICS_LISTEN="127.0.0.1:0")
    )
    address = server.address.server
    for service in ("", "liveness", "tidemark.v1.AlertService"):
        assert await health(tmp_path, "--server", address, "--service", service) == (0, "SERVING\n")
    code, said = await health(tmp_path, "--server", address, "--service", "nothing.Service")
    assert (code, "has no service 'nothing.Service'" in said) == (1, True)
    for program in (server, notifier):
        [port] = set(re.findall(r"monitoring_port=(\d+)", program.said()))
        assert await health(tmp_path, "--url", f"http://127.0.0.1:{port}/readyz") == (0, "ready\n")
        assert (await health(tmp_path, "--url", f"http://127.0.0.1:{port}/nothing"))[0] == 1
        await program.stop()
        assert (await health(tmp_path, "--url", f"http://127.0.0.1:{port}/readyz"))[0] == 1
    code, said = await health(tmp_path, "--server", address)
    assert (code, f"no server answers at {address}" in said) == (1, True)


async def test_health_of_a_server_with_client_certificates_needs_one(programs: Programs, tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    authority.server().write(tmp_path / "server.crt", tmp_path / "server.key")
    authority.client("probe.test").write(tmp_path / "client.crt", tmp_path / "client.key")
    server = await programs.serve(
        TLS_CERTIFICATE=str(tmp_path / "server.crt"),
        TLS_KEY=str(tmp_path / "server.key"),
        TLS_CLIENT_CA=str(tmp_path / "ca.crt"),
    )
    address = f"{HOST}:{server.address.server.rpartition(':')[2]}"
    with_ca = ("--server", address, "--server-ca", str(tmp_path / "ca.crt"))
    certificate = ("--client-certificate", str(tmp_path / "client.crt"), "--client-key", str(tmp_path / "client.key"))
    assert await health(tmp_path, *with_ca, *certificate) == (0, "SERVING\n")
    assert (await health(tmp_path, *with_ca))[0] == 1
    assert (await health(tmp_path, "--server", address))[0] == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:9464", "http://127.0.0.1:1/readyz", "http://[/"])
async def test_health_of_a_bad_url_is_an_error_in_one_line(url: str, tmp_path: Path) -> None:
    code, said = await health(tmp_path, "--url", url)
    assert code in (1, 2)
    assert url in said or "begins with http" in said


def test_commands_of_the_page_are_the_ones_that_are_tested_here() -> None:
    [block] = blocks("deploying.md", "Health")
    assert [line.split()[:2] for line in block.splitlines()] == [["tidemark", "health"]] * 3
