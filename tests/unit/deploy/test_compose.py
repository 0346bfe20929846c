"""The compose files: rights of their processes, their form, their secrets, and the cluster of one of them."""

import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.support.deployment import CITUS, COMPOSE_FILES, documents, is_tidemark

each_file = pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.parent.name)


@each_file
def test_compose_runs_processes_without_rights(path: Path) -> None:
    [compose] = documents(path)
    for service in compose["services"].values():
        if is_tidemark(service):
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
        "name": {"enum": ["tidemark", "tidemark-citus"]},
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
                    "deploy": {"additionalProperties": False, "properties": {"replicas": {"type": "integer"}}},
                    "shm_size": {"type": "string", "pattern": r"^\d+mb$"},
                    "ports": {
                        "type": "array",
                        "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+(-\d+)?:\d+$"},
                    },
                    "volumes": {"type": "array", "items": {"type": "string", "pattern": r"^[.\w/-]+:/[\w/]+(:ro)?$"}},
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


@each_file
def test_compose_file_has_the_form_of_its_specification(path: Path) -> None:
    [compose] = documents(path)
    jsonschema.validate(compose, COMPOSE_SCHEMA)
    for name, service in compose["services"].items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in compose["services"], name
            if how["condition"] == "service_healthy":
                assert "test" in compose["services"][needed]["healthcheck"]
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in compose["volumes"] or (path.parent / source).is_dir()


@each_file
def test_secrets_of_compose_are_those_of_its_example(path: Path) -> None:
    named = set(re.findall(r"\$\{(\w+):\?", path.read_text()))
    assert named == set(re.findall(r"^(\w+)=$", (path.parent / "example.env").read_text(), re.MULTILINE))


def cluster() -> dict[str, Any]:
    """The services of the file of a cluster."""
    [compose] = documents(CITUS / "compose.yaml")
    services: dict[str, Any] = compose["services"]
    return services


def nodes() -> dict[str, Any]:
    """Of these, the nodes."""
    return {name: service for name, service in cluster().items() if not is_tidemark(service)}


def test_migration_of_the_cluster_adds_every_worker_and_waits_for_each() -> None:
    migrate = cluster()["migrate"]
    workers = {name for name in nodes() if name != "coordinator"}
    assert {node.partition(":")[0] for node in migrate["command"][-1].split(",")} == workers
    assert migrate["depends_on"].keys() == nodes().keys()
    assert "@coordinator:5432/" in migrate["environment"]["TIDEMARK_DATABASE_URL"]


def test_nodes_run_without_rights_and_keep_their_data() -> None:
    assert len(nodes()) == 3
    for name, service in nodes().items():
        assert service["user"] == "postgres"
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["volumes"] == [f"{name}:/var/lib/postgresql/data"]
        assert "trust" not in str(service["environment"])


def test_images_of_the_cluster_have_versions_and_a_way_to_pin_them() -> None:
    text = (CITUS / "compose.yaml").read_text()
    assert "latest" not in text
    assert re.search(r"CITUS_IMAGE=citusdata/citus@sha256:", text), "how to pin the image by its digest"
    for service in nodes().values():
        assert re.fullmatch(r"\$\{CITUS_IMAGE:-citusdata/citus:\d+\.\d+\.\d+\}", service["image"])
