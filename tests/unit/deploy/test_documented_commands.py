"""Every command of docs/deploying.md and docs/scaling.md names files, services, units and options that exist.

`tests/acceptance/test_backup.py` runs those of backup and restore, `tests/acceptance/test_health.py` those of health,
`tests/unit/deploy/test_tools.py` those of installed tools, `tests/unit/bench/test_documented_parts.py` those of
`make bench`.
"""

import itertools
import re
import shlex
from collections.abc import Iterator, Sequence

import pytest

from tests.support.deployment import (
    CITUS,
    COMPOSE_FILES,
    KUBERNETES,
    ROOT,
    check_command,
    documents,
    kubernetes_objects,
    pods,
    units,
)
from tests.support.documented import ROOT as REPOSITORY

# What other tests run as it is typed, and what belongs to no file of this repository.
ELSEWHERE = {"make", "pg_dump", "pg_restore", "pg_basebackup", "python3", "/opt/tidemark/bin/pip"}


PAGES = ("deploying.md", "scaling.md")


def commands() -> Iterator[list[str]]:
    """The commands of the pages, as words."""
    text = "\n".join((REPOSITORY / "docs" / page).read_text() for page in PAGES)
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def options(words: Sequence[str], name: str) -> list[str]:
    """The values of an option, in both forms."""
    following = [after for word, after in itertools.pairwise(words) if word == name]
    return following + [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]


def check_tidemark(words: Sequence[str]) -> None:
    """The command and its options exist."""
    check_command(words[1:])


def check_docker(words: Sequence[str]) -> None:
    """Files and services exist."""
    if words[1] == "build":
        [file] = options(words, "--file")
        assert (ROOT / file).is_file()
        return
    assert words[1] == "compose"
    services_of = {name: one for path in COMPOSE_FILES for name, one in documents(path)[0]["services"].items()}
    arguments = [word for word in words[2:] if not word.startswith("--")]
    action, *services = arguments
    assert action in ("up", "run", "exec")
    for name in services if action == "up" else services[:1]:
        assert name in services_of
    if action == "run":
        check_tidemark([*services_of[services[0]]["entrypoint"], *words[words.index(services[0]) + 1 :]])


def check_kubectl(words: Sequence[str]) -> None:
    """Folders, objects, and the keys of secrets exist."""
    for folder in options(words, "--kustomize"):
        assert (ROOT / folder / "kustomization.yaml").is_file()
    for job in (word.removeprefix("job/") for word in words if word.startswith("job/")):
        assert job in {one["metadata"]["name"] for one in kubernetes_objects("Job")}
    if "secret" in words:
        name = words[words.index("generic") + 1]
        given = {literal.partition("=")[0] for literal in options(words, "--from-literal")}
        assert given == referenced_keys(name)
    namespaces = {*options(words, "--namespace"), *(words[3:4] if "namespace" in words else ())}
    [example] = documents(KUBERNETES / "example" / "common" / "kustomization.yaml")
    assert namespaces <= {example["namespace"]}


def referenced_keys(secret: str) -> set[str]:
    """The keys that pods take from a Secret."""
    nodes = [
        one["spec"]["template"]
        for path in (CITUS / "kubernetes" / "nodes").glob("*.yaml")
        for one in documents(path)
        if one["kind"] == "StatefulSet"
    ]
    references = [
        one["valueFrom"]["secretKeyRef"]
        for pod in [*nodes, *(pod for _, pod in pods())]
        for container in pod["spec"]["containers"]
        for one in container["env"]
        if "valueFrom" in one
    ]
    return {one["key"] for one in references if one["name"] == secret}


def check_files(words: Sequence[str]) -> None:
    """The files that are copied exist."""
    for word in words:
        if word.startswith("deploy/"):
            assert list(ROOT.glob(word)), f"there is no file {word}"


def check_copy(words: Sequence[str]) -> None:
    """A file of the folder of a compose file, or the key file of an embedded server."""
    assert "secret.key" in words[1] or all((path.parent / words[1]).exists() for path in COMPOSE_FILES)


def check_helm(words: Sequence[str]) -> None:
    """The chart and the files of values exist."""
    assert words[1:3] in (["install", "tidemark"], ["upgrade", "tidemark"])
    check_files(words)
    assert (ROOT / words[3] / "Chart.yaml").is_file()


def check_systemctl(words: Sequence[str]) -> None:
    """The units exist."""
    for name in (word for word in words[2:] if not word.startswith("--")):
        assert f"{name}.service" in units()


CHECKS = {
    "cd": check_files,
    "cp": check_copy,
    "docker": check_docker,
    "envoy": check_files,
    "helm": check_helm,
    "install": check_files,
    "kubectl": check_kubectl,
    "systemctl": check_systemctl,
    "tidemark": check_tidemark,
}


@pytest.mark.parametrize("words", list(commands()), ids=shlex.join)
def test_command_names_what_exists(words: list[str]) -> None:
    if words[0] not in ELSEWHERE:
        CHECKS[words[0]](words)
