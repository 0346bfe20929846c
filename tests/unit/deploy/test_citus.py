"""The Kubernetes objects of a cluster of Citus: rights of its nodes, their settings, and the migration."""

import re
from typing import Any

import pytest

from cli.doctor.cluster_node_checks import is_soon
from tests.support.deployment import CITUS, check_command, documents

FOLDER = CITUS / "kubernetes"
NODES = ("tidemark-coordinator", "tidemark-worker")


def objects(*kinds: str) -> list[dict[str, Any]]:
    """The objects of the nodes of these kinds."""
    paths = [path for path in sorted((FOLDER / "nodes").glob("*.yaml")) if path.name != "kustomization.yaml"]
    return [one for path in paths for one in documents(path) if one["kind"] in kinds]


def node(name: str) -> dict[str, Any]:
    """The set of this name."""
    [found] = [one for one in objects("StatefulSet") if one["metadata"]["name"] == name]
    return found


def container(name: str) -> dict[str, Any]:
    """The one container of its pods."""
    [found] = node(name)["spec"]["template"]["spec"]["containers"]
    one: dict[str, Any] = found
    return one


def postgresql_settings(arguments: list[str]) -> dict[str, str]:
    """The settings that the arguments of `postgres` give."""
    assert (arguments[0], set(arguments[1::2])) == ("postgres", {"-c"})
    return dict(setting.split("=", 1) for setting in arguments[2::2])


@pytest.mark.parametrize("name", NODES)
def test_a_node_runs_without_rights(name: str) -> None:
    spec = node(name)["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container(name)["resources"]["limits"].keys() == {"memory"}


@pytest.mark.parametrize("name", NODES)
def test_a_node_writes_to_volumes_only(name: str) -> None:
    mounted = {one["mountPath"]: one["name"] for one in container(name)["volumeMounts"]}
    assert mounted.keys() == {"/var/lib/postgresql/data", "/var/run/postgresql", "/tmp", "/dev/shm"}
    spec = node(name)["spec"]
    claimed = {one["metadata"]["name"] for one in spec["volumeClaimTemplates"]}
    assert claimed == {mounted["/var/lib/postgresql/data"]}
    assert {one["name"] for one in spec["template"]["spec"]["volumes"]} | claimed == set(mounted.values())


def test_all_nodes_have_the_same_settings_in_both_forms() -> None:
    [compose] = documents(CITUS / "compose.yaml")
    found = [postgresql_settings(container(name)["args"]) for name in NODES]
    found += [postgresql_settings(compose["services"][name]["command"]) for name in ("coordinator", "worker-1")]
    sized = {"shared_buffers", "max_wal_size"}  # by the memory and the disk
    shared = [{key: value for key, value in one.items() if key not in sized} for one in found]
    assert all(one == shared[0] for one in shared)
    assert int(shared[0]["max_prepared_transactions"]) >= int(shared[0]["max_connections"])
    workers = node("tidemark-worker")["spec"]["replicas"]
    assert int(shared[0]["citus.shard_count"]) >= 8 * workers
    assert is_soon(shared[0]["citus.recover_2pc_interval"])  # or doctor would advise it at once


def test_migration_adds_every_worker_by_the_name_of_its_pod() -> None:
    [patch] = documents(FOLDER / "migrate" / "job.yaml")
    [migrate] = patch["spec"]["template"]["spec"]["containers"]
    workers = node("tidemark-worker")
    pods = range(workers["spec"]["replicas"])
    expected = [f"tidemark-worker-{number}.{workers['spec']['serviceName']}:5432" for number in pods]
    assert migrate["args"][-1].split(",") == expected
    check_command(migrate["args"])
    [kustomization] = documents(FOLDER / "migrate" / "kustomization.yaml")
    [base] = kustomization["resources"]
    assert (FOLDER / "migrate" / base / "kustomization.yaml").is_file()


def test_every_selector_finds_nodes() -> None:
    labels = [node(name)["spec"]["template"]["metadata"]["labels"] for name in NODES]
    selectors = [one["spec"]["selector"] for one in objects("Service")]
    selectors += [one["spec"]["selector"]["matchLabels"] for one in objects("StatefulSet", "PodDisruptionBudget")]
    assert len(selectors) == 6
    for selector in selectors:
        assert sum(selector.items() <= one.items() for one in labels) == 1, selector


def test_image_has_a_version_and_a_way_to_pin_it() -> None:
    path = FOLDER / "nodes" / "kustomization.yaml"
    [image] = documents(path)[0]["images"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", image["newTag"])
    assert "digest: sha256:" in path.read_text()
    [compose] = documents(CITUS / "compose.yaml")
    assert f"{image['newName']}:{image['newTag']}" in compose["services"]["coordinator"]["image"]


def test_password_comes_from_a_secret_and_nodes_use_it_among_themselves() -> None:
    for name in NODES:
        variables = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container(name)["env"]}
        assert variables.keys() == {"POSTGRES_PASSWORD", "PGPASSWORD"}
        assert all(one == {"name": "tidemark-citus", "key": "password"} for one in variables.values())
