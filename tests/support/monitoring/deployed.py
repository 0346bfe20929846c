"""The files of deploy/monitoring: their queries, and the alert rules."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "monitoring"
RULES = FOLDER / "prometheus" / "rules.yaml"
RULES_TEST = FOLDER / "prometheus" / "rules_test.yaml"
PROMETHEUS = FOLDER / "prometheus" / "prometheus.yaml"
DASHBOARDS = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))

_LABEL_VALUES = re.compile(r"label_values\((.*),\s*\w+\)")


@dataclass(frozen=True)
class Query:
    """A PromQL expression, where it is, and the texts that show labels of its result."""

    place: str
    expression: str
    templates: Sequence[str] = ()

    def __str__(self) -> str:
        return self.place


@cache
def rules() -> list[Mapping[str, Any]]:
    """All rules of all groups."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@cache
def dashboards() -> dict[str, Mapping[str, Any]]:
    """The dashboards by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The panels with queries, those of collapsed rows among them."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", ())
        else:
            yield panel


def queries() -> list[Query]:
    """Every expression of the rules and the dashboards."""
    found = [
        Query(f"rule {rule['alert']}", rule["expr"], [*rule.get("annotations", {}).values()]) for rule in rules()
    ]
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                place = f"{name}: {panel['title']} {target['refId']}"
                found.append(Query(place, target["expr"], [_legend(target.get("legendFormat", ""))]))
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query" and (values := _LABEL_VALUES.fullmatch(variable["definition"])):
                found.append(Query(f"{name}: variable {variable['name']}", values[1]))
    return found


def _legend(text: str) -> str:
    """The form of a legend, `{{label}}`, in that of an annotation, `{{ $labels.label }}`."""
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", r"{{ $labels.\1 }}", text)
