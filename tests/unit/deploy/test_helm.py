"""The chart makes the same objects as Kustomize, changed by its values."""

import json
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from tests.support.deployment import CITUS, HELM, KUBERNETES, documents, kustomize

IMAGE = {"image": {"repository": "registry.example/tidemark"}}  # of the example
OF_PODS = "checksum/settings"  # the chart's annotation, in place of the digest in the name that Kustomize gives


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects of an installation with these values."""
    helm = pytest.importorskip("helm_python", reason="Helm is not installed (pip install helm-python-sdk)")
    with helm.Chart.load(HELM) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name="tidemark", namespace="tidemark")
    found = (one for name, text in files.items() if name.endswith(".yaml") for one in yaml.safe_load_all(text))
    return [one for one in found if one is not None]


def comparable(one: Any) -> Any:
    """An object without what its tool adds: a namespace, hooks, names with digests, and the order of named items."""
    if isinstance(one, dict):
        left = {key: comparable(value) for key, value in one.items() if key not in ("namespace", OF_PODS)}
        if left.get("kind") == "Job":
            del left["metadata"]["annotations"]
        elif left.get("kind") == "ServiceAccount":
            left["metadata"].pop("annotations", None)
        if str(left.get("name", "")).startswith("tidemark-settings"):
            left["name"] = "tidemark-settings"
        return left
    if isinstance(one, list):
        return sorted((comparable(item) for item in one), key=lambda item: json.dumps(item, sort_keys=True))
    return one


def by_name(objects: Iterable[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """The objects, as far as they have to agree."""
    plain = [comparable(one) for one in objects]
    found = {(one["kind"], one["metadata"]["name"]): one for one in plain}
    assert len(found) == len(plain)
    return found


def pod(objects: Iterable[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """The template of the pods of an object."""
    [found] = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    template: dict[str, Any] = found["spec"]["template"]
    return template


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example, to change."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    return tmp_path / "kubernetes" / "example" / "services"


@pytest.mark.parametrize("components", [(), ("tls",), ("tls", "http"), ("istio",)], ids="-".join)
def test_chart_makes_the_objects_of_kustomize(components: tuple[str, ...], example: Path) -> None:
    folder = {"resources": ["../../base"], "components": [f"../../components/{one}" for one in components]}
    folder["components"].append("../common")
    (example / "kustomization.yaml").write_text(yaml.safe_dump(folder))
    expected = by_name([*kustomize(example), *kustomize(KUBERNETES / "example" / "migrate")])
    assert by_name(rendered(IMAGE | {"components": list(components)})) == expected


def test_values_of_a_cluster_make_the_migration_of_its_manifests() -> None:
    [values] = documents(CITUS / "values.yaml")
    expected = by_name(kustomize(CITUS / "kubernetes" / "example" / "migrate"))
    found = by_name(rendered(IMAGE | values))
    assert {name: found[name] for name in expected} == expected


def test_migration_runs_before_what_needs_it() -> None:
    hooks = {
        one["kind"]: one["metadata"]["annotations"]
        for one in rendered({})
        if "helm.sh/hook" in one["metadata"].get("annotations", {})
    }
    assert hooks.keys() == {"Job", "ServiceAccount"}
    assert {one["helm.sh/hook"] for one in hooks.values()} == {"pre-install,pre-upgrade"}
    assert hooks["ServiceAccount"]["helm.sh/hook-weight"] < hooks["Job"]["helm.sh/hook-weight"]
    assert "Job" not in {one["kind"] for one in rendered({"migrate": {"enabled": False}})}


def test_values_change_the_objects_and_a_changed_setting_replaces_the_pods() -> None:
    objects = rendered({
        "image": {"repository": "one", "digest": f"sha256:{'0' * 64}", "pullSecrets": ["registry"]},
        "settings": {"TIDEMARK_RETENTION_DAYS": "62", "TIDEMARK_LOG_FORMAT": "text"},
        "server": {"minReplicas": 3, "maxReplicas": 9, "resources": {"limits": {"memory": "2Gi"}}},
        "notifier": {"replicas": 4},
        "patches": [{
            "kind": "Deployment",
            "metadata": {"name": "tidemark-server"},
            "spec": {"template": {"spec": {
                "nodeSelector": {"disk": "ssd"},
                "terminationGracePeriodSeconds": 90,
                "containers": [{"name": "server", "livenessProbe": None, "env": [{"name": "A", "value": "b"}]}],
            }}},
        }],
    })  # fmt: skip
    server = pod(objects, "Deployment", "tidemark-server")
    [container] = server["spec"]["containers"]
    assert container["image"] == f"one@sha256:{'0' * 64}"
    assert container["resources"] == {"limits": {"memory": "2Gi"}, "requests": {"cpu": "500m", "memory": "384Mi"}}
    assert "livenessProbe" not in container
    assert [one["name"] for one in container["env"]] == ["TIDEMARK_DATABASE_URL", "TIDEMARK_SECRET_KEYS", "A"]
    assert server["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert server["spec"]["terminationGracePeriodSeconds"] == 90
    for kind, name in (("Job", "tidemark-migrate"), ("Deployment", "tidemark-notifier")):
        assert pod(objects, kind, name)["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    [settings] = [one["data"] for one in objects if one["kind"] == "ConfigMap"]
    assert settings["TIDEMARK_RETENTION_DAYS"] == "62"
    assert (settings["TIDEMARK_LOG_FORMAT"], settings["TIDEMARK_MIGRATE"]) == ("text", "never")
    [scaled] = [one["spec"] for one in objects if one["kind"] == "HorizontalPodAutoscaler"]
    assert (scaled["minReplicas"], scaled["maxReplicas"]) == (3, 9)
    [notifier] = [
        one for one in objects if (one["kind"], one["metadata"]["name"]) == ("Deployment", "tidemark-notifier")
    ]
    assert notifier["spec"]["replicas"] == 4
    before = pod(rendered({}), "Deployment", "tidemark-server")
    assert before["metadata"]["annotations"][OF_PODS] != server["metadata"]["annotations"][OF_PODS]


def test_a_patch_that_names_no_object_is_an_error() -> None:
    with pytest.raises(Exception, match="Deployment tidemark-sever"):
        rendered({"patches": [{"kind": "Deployment", "metadata": {"name": "tidemark-sever"}}]})


# What follows needs no Helm.


def check_values(values: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError for values that the chart refuses."""
    jsonschema.validate(values, json.loads((HELM / "values.schema.json").read_text()))


def test_chart_has_the_objects_of_kustomize_and_no_copy() -> None:
    linked = {one.name: one.resolve() for one in (HELM / "objects").iterdir()}
    assert linked == {name: KUBERNETES / name for name in ("base", "components", "migrate")}


def test_chart_has_the_version_of_the_project() -> None:
    [chart] = documents(HELM / "Chart.yaml")
    assert (chart["version"], chart["appVersion"]) == (version("tidemark"), version("tidemark"))


def test_default_values_are_what_the_manifests_have() -> None:
    [values] = documents(HELM / "values.yaml")
    check_values(values)
    [scaler] = [one for one in documents(KUBERNETES / "base" / "server.yaml") if "minReplicas" in one["spec"]]
    assert {name: scaler["spec"][name] for name in ("minReplicas", "maxReplicas")}.items() <= values["server"].items()
    [notifier, _] = documents(KUBERNETES / "base" / "notifier.yaml")
    assert values["notifier"]["replicas"] == notifier["spec"]["replicas"]


def test_values_know_every_component() -> None:
    schema = json.loads((HELM / "values.schema.json").read_text())
    folders = {one.name for one in (KUBERNETES / "components").iterdir()}
    assert set(schema["properties"]["components"]["items"]["enum"]) == folders


def test_values_of_a_cluster_name_the_workers_of_its_manifests() -> None:
    [values] = documents(CITUS / "values.yaml")
    check_values(values)
    [patch] = documents(CITUS / "kubernetes" / "migrate" / "job.yaml")
    [migrate] = patch["spec"]["template"]["spec"]["containers"]
    assert values["migrate"]["citusNodes"] == migrate["args"][-1].split(",")


@pytest.mark.parametrize(
    "values",
    [
        {"imag": {}},
        {"image": {"digest": "latest"}},
        {"settings": {"TIDEMARK_RETENTION_DAYS": 62}},
        {"settings": {"RETENTION_DAYS": "62"}},
        {"components": ["mtls"]},
        {"migrate": {"citusNodes": ["worker-0,worker-1"]}},
        {"patches": [{"kind": "Deployment"}]},
    ],
    ids=str,
)
def test_values_that_would_be_ignored_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check_values(values)
