"""Server and notifier on a read-only file system and without capabilities, as the image runs them."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.serving.processes import LISTENING, RUNNING
from tests.support.processes.programs import SETTINGS
from tests.support.processes.up import TIMEOUT

ROOT = Path(__file__).resolve().parents[2]
# In a mount namespace of its own, so that only this process sees the file system as read-only. The one capability is
# for the socket of the tests' PostgreSQL, which belongs to another user.
CONFINED = """
set -e
mount --options remount,ro,bind /
mount --types tmpfs --options ro none /tmp
if touch {root}/written; then echo 'the file system can be written to' >&2; exit 1; fi
cd /
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,+dac_override {command}
"""


@contextmanager
def confined(url: str, *command: str) -> Iterator["subprocess.Popen[str]"]:
    """Runs a command on a read-only file system. Skips the test where that is not possible."""
    trial = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if os.geteuid() != 0 or trial.returncode != 0:
        pytest.skip("this user may not make a mount namespace")
    if ROOT.is_relative_to("/tmp"):
        pytest.skip("the repository stands below /tmp, which is empty for the process")
    program = shlex.join([sys.executable, "-P", "-m", "cli.main", *command])
    script = CONFINED.format(root=shlex.quote(str(ROOT)), command=program)
    process = subprocess.Popen(
        ["unshare", "--mount", "bash", "-c", script],
        env={**os.environ, **SETTINGS, "TIDEMARK_DATABASE_URL": url, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=TIMEOUT)


@pytest.mark.parametrize(("command", "ready"), [("serve", LISTENING), ("notify", RUNNING)])
def test_process_runs_and_drains_without_writing_a_file(command: str, ready: str, database_url: str) -> None:
    with confined(database_url, command) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith(ready):
            pytest.fail(process.communicate(timeout=TIMEOUT)[1])
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, "Traceback" in log) == (0, False), log
