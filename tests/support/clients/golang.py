"""The Go of this machine, and programs of the Go client that it builds for tests."""

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.clients.usage import LIMIT
from tests.support.deployment import ROOT

FOLDER = ROOT / "clients" / "go"
MODULE = "tidemark.dev/api"
BUILD = ROOT / ".build" / "go"
# Where Debian's packages put the sources of modules, for builds without a module proxy.
DEBIAN = Path("/usr/share/gocode")
NEEDED = ("google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto/googleapis/rpc")
PACKAGES = "golang-go golang-google-grpc-dev golang-google-genproto-dev golang-github-golang-protobuf-1-5-dev"
BUILD_SECONDS = 600.0  # the first build compiles gRPC, and part of Go's own library


@dataclass(frozen=True)
class Go:
    """The toolchain. folder: where commands run. extra: for tests, such as `-race`."""

    folder: Path
    environment: Mapping[str, str]
    extra: tuple[str, ...] = ()

    def run(self, *arguments: str) -> str:
        """What a command of Go prints. Fails the test with it if the command fails."""
        with _alone():
            finished = subprocess.run(
                ["go", *arguments],
                cwd=self.folder,
                env={**self.environment, "PWD": str(self.folder)},  # the folder may be a link
                capture_output=True,
                text=True,
                timeout=BUILD_SECONDS,
                check=False,
            )
        assert finished.returncode == 0, f"go {' '.join(arguments)}\n{finished.stdout}{finished.stderr}"
        return finished.stdout

    def for_a_user(self, place: Path) -> "Go":
        """The same for programs that import the client, in a new folder."""
        if "GOPATH" in self.environment and self.environment.get("GO111MODULE") == "off":
            folder = place / "src" / "user"
            folder.mkdir(parents=True)
            return replace(
                self,
                folder=folder,
                environment={**self.environment, "GOPATH": f"{self.environment['GOPATH']}:{place}"},
            )
        place.mkdir()
        own = (FOLDER / "go.mod").read_text().replace(f"module {MODULE}\n", "module user\n")
        (place / "go.mod").write_text(f"{own}\nrequire {MODULE} v0.0.0\n\nreplace {MODULE} => {FOLDER}\n")
        shutil.copy(FOLDER / "go.sum", place)
        return replace(self, folder=place)


def find_go() -> Go | str:
    """The toolchain with the modules that the client needs; a sentence where they are not here."""
    if shutil.which("go") is None:
        return "Go is not installed; with it, these tests build the Go client"
    environment = {**os.environ, "GOFLAGS": "-buildvcs=false", "GOPROXY": "off"}
    environment.setdefault("GOCACHE", str(BUILD / "cache"))
    environment.setdefault("GRPC_GO_RETRY", "on")  # what gRPC 1.40 and newer always do
    extra = ("-race",) if os.environ.get("TIDEMARK_TEST_RACE") else ()
    # The versions of go.mod, where they have been downloaded.
    known = subprocess.run(
        ["go", "list", "-deps", "./..."], cwd=FOLDER, env=environment, capture_output=True, check=False
    )
    if known.returncode == 0:
        return Go(FOLDER, environment, extra)
    if any(not (DEBIAN / "src" / name).is_dir() for name in NEEDED):
        return (
            "the modules of clients/go/go.mod are not here: run go mod download in clients/go, "
            f"or on Debian apt install {PACKAGES}"
        )
    link = BUILD / "path" / "src" / MODULE
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.exists():
        link.symlink_to(FOLDER, target_is_directory=True)
    return Go(link, {**environment, "GO111MODULE": "off", "GOPATH": f"{BUILD / 'path'}:{DEBIAN}"}, extra)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Waits for the builds of other processes of the tests. At the same time, each would compile all of gRPC."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


async def output_of(
    program: Path, *arguments: str, environment: Mapping[str, str], folder: Path | None = None
) -> str:
    """What a program prints, while the event loop runs. Fails the test with it if the program fails."""
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), LIMIT)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, printed.decode()
    return printed.decode()
