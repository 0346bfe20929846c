"""The compose file: rights of its processes, its form, its secrets."""

import re

import jsonschema  # type: ignore[import-untyped]

from tests.support.deployment import (
    COMPOSE,
    documents,
)


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
