"""The shell session of the README works as it is typed."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# grpcurl is a program of its own, which a test cannot expect; buf curl speaks the same protocol to the same server.
# This turns the few forms that the README uses into the other's words.
GRPCURL = f"""#!{sys.executable}
import os, sys
arguments = sys.argv[1:]
assert arguments.pop(0) == "-plaintext"
data = ["--data", arguments[1]] if arguments[0] == "-d" else []
address, *what = arguments[len(data):]
buf = [{str(Path(sys.executable).parent / "buf")!r}, "curl", "--http2-prior-knowledge", "--protocol", "grpc"]
if what[0] == "list":
    os.execv(buf[0], [*buf, "--list-methods", "http://" + address])
os.execv(buf[0], [*buf, *data, "http://" + address + "/" + what[0]])
"""


@pytest.fixture
def session() -> str:
    """The README's shell session."""
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "grpcurl" in block]
    return found


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where `tidemark up` listens, on an embedded database of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cli.main", "up"],
        env={**environment, "TIDEMARK_DATA_DIRECTORY": str(tmp_path / "data"), "TIDEMARK_LISTEN": "127.0.0.1:0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        printed = []
        for line in process.stderr:
            printed.append(line)
            if found := re.match(r"server +listening on (\S+)", line):
                yield found.group(1)
                break
        else:
            pytest.fail("tidemark up ended: " + "".join(printed))
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_session_of_the_readme_works_as_typed(session: str, address: str, tmp_path: Path) -> None:
    program = tmp_path / "grpcurl"
    program.write_text(GRPCURL)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", session.replace("127.0.0.1:50051", address)],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    answers = finished.stdout.replace("}\n{", "}\n\0{").split("\0")
    assert len(answers) == 7
    created, validated, of_team, acknowledged, listed, endpoint, notifications_and_methods = answers
    assert '"alertId"' in created
    assert '"value": "500"' in validated
    assert '"team": "growth"' in of_team
    assert '"value": "1000"' in of_team
    assert '"value": "500"' not in of_team
    assert '"accepted": 1' in acknowledged
    assert '"level": "1000"' in acknowledged
    assert "CUSTOMER_ALERT_STATUS_IN_ALARM" in listed
    assert '"secret": "whsec_' in endpoint
    assert '"eventType": "EVENT_TYPE_ALERT_REACHED"' in notifications_and_methods
    assert "tidemark.v1.AlertService/EvaluateUsage" in notifications_and_methods
