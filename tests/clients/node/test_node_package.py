"""The package of clients/node: its files and its lock."""

import json
import shutil
import subprocess
import tomllib

import pytest

from tests.support.clients.node import CLIENT

ROOT = CLIENT.parents[1]


def test_version_and_licence_are_those_of_the_service() -> None:
    service = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    package = json.loads((CLIENT / "package.json").read_text())
    locked = json.loads((CLIENT / "package-lock.json").read_text())
    assert package["version"] == service["version"] == locked["version"]
    assert package["license"] == service["license"]
    assert (CLIENT / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_client_depends_on_grpc_and_protobuf_only() -> None:
    assert set(json.loads((CLIENT / "package.json").read_text())["dependencies"]) == {
        "@bufbuild/protobuf",
        "@grpc/grpc-js",
    }


def test_lock_names_no_registry() -> None:
    lock = json.loads((CLIENT / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert [name for name, package in packages.items() if "integrity" not in package] == []


@pytest.mark.usefixtures("node")
def test_package_has_the_compiled_code_and_its_types() -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed; it makes the package")
    packed = subprocess.run(
        [npm, "pack", "--dry-run", "--json", "--ignore-scripts", "--offline"],
        cwd=CLIENT,
        capture_output=True,
        text=True,
        check=True,
    )
    [package] = json.loads(packed.stdout)
    files = {file["path"] for file in package["files"]}
    assert {"LICENSE", "README.md", "package.json", "dist/index.js", "dist/index.d.ts"} <= files
    assert {"dist/generated/v1.js", "dist/generated/v1.d.ts", "src/index.ts"} <= files
    assert {path.partition("/")[0] for path in files} == {"LICENSE", "README.md", "package.json", "dist", "src"}
