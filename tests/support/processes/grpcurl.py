"""The shell sessions of documents, with their calls of grpcurl."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

# grpcurl is a program of its own, which a test cannot expect; buf curl speaks the same protocol to the same server.
# This turns the few forms that documents use into the other's words.
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


def session_of(page: Path) -> str:
    """The one shell session of a document that calls grpcurl with data."""
    blocks: list[str] = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if "grpcurl -plaintext -d" in block]
    return found


def answers_of(session: str, address: str, folder: Path) -> list[str]:
    """The answers of a session that is typed at a server. folder: for the program."""
    program = folder / "grpcurl"
    program.write_text(GRPCURL)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    finished = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", session.replace("127.0.0.1:50051", address)],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.replace("}\n{", "}\n\0{").split("\0")
