"""The package: what it carries and depends on, alone and in one process with the server."""

import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import generated.tidemark.v1 as of_server
import tidemark_client.v1 as of_client
from tidemark_client.connection.options import service_config

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "clients" / "python"

# Imports everything as if grpcio and protobuf were the only packages installed.
ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("google.api", "google.rpc", "buf", "generated", "runtime")):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import tidemark_client.v1 as v1
for name in v1.__all__:
    getattr(v1, name)
from tidemark_client.imported.google.rpc import status_pb2
assert status_pb2.__name__.startswith("tidemark_client.carried."), status_pb2
status = v1.Rejection(status=status_pb2.Status(code=3)).status
assert type(status) is status_pb2.Status
"""


def settings(folder: Path) -> dict[str, object]:
    project: dict[str, object] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    return project


def test_service_depends_on_the_client_of_its_own_version() -> None:
    service, client = settings(ROOT), settings(PACKAGE)
    assert service["version"] == client["version"]
    dependencies = service["dependencies"]
    assert isinstance(dependencies, list)
    assert f"tidemark-client=={client['version']}" in dependencies


def test_client_depends_on_grpc_and_protobuf_only() -> None:
    dependencies = settings(PACKAGE)["dependencies"]
    assert isinstance(dependencies, list)
    assert [re.split(r"[<>=]", one)[0] for one in dependencies] == ["grpcio", "protobuf"]


def test_service_config_is_that_of_the_repository() -> None:
    assert service_config() == (ROOT / "deploy" / "grpc-service-config.json").read_text()


def test_messages_of_client_and_server_are_one_class_in_one_process() -> None:
    modules = [one.name for one in pkgutil.iter_modules(of_server.__path__) if one.name.endswith("_pb2")]
    assert modules
    for name in modules:
        ours = importlib.import_module(f"tidemark_client.v1.{name}").DESCRIPTOR
        theirs = importlib.import_module(f"generated.tidemark.v1.{name}").DESCRIPTOR
        assert ours is theirs
    assert of_client.UsageEvent is importlib.import_module("generated.tidemark.v1.usage_pb2").UsageEvent


def test_every_name_of_the_contract_can_be_imported() -> None:
    assert {"Alert", "UsageEvent", "AlertServiceStub", "SEVERITY_CRITICAL"} <= set(of_client.__all__)
    assert all(getattr(of_client, name) is not None for name in of_client.__all__)
    assert set(dir(of_client)) == set(of_client.__all__)
    assert not hasattr(of_client, "Nothing")


def test_client_runs_without_the_packages_that_carry_the_same_files() -> None:
    finished = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
