"""The files of deploy/monitoring: each alert rule has its section, and each dashboard can be imported."""

import itertools
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from generated.tidemark.v1 import (
    account_service_pb2,
    alert_service_pb2,
    audit_service_pb2,
    limit_service_pb2,
    webhook_service_pb2,
)
from tests.support.monitoring.deployed import (
    DASHBOARDS,
    PROMETHEUS,
    ROOT,
    RULES,
    RULES_TEST,
    Query,
    dashboards,
    panels,
    queries,
    rules,
)
from tests.support.monitoring.promql import read

OPERATING = ROOT / "docs" / "operating.md"
ALERT_NAME = re.compile(r"Tidemark[A-Za-z]+")
PARTS = ("**Meaning.**", "**Check.**", "**Do.**")
PROMTOOL = shutil.which("promtool")


def sections() -> dict[str, str]:
    """The sections of the page by their headings."""
    _, *parts = re.split(r"^## ", OPERATING.read_text(), flags=re.MULTILINE)
    return {heading: text for heading, _, text in (part.partition("\n") for part in parts)}


def test_each_rule_has_a_section_and_each_section_a_rule() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    assert [one for one in sections() if ALERT_NAME.fullmatch(one)] == names


@pytest.mark.parametrize("name", [rule["alert"] for rule in rules()])
def test_a_section_says_what_it_means_and_how_to_check_and_what_to_do(name: str) -> None:
    text = sections()[name]
    positions = [text.find(part) for part in PARTS]
    assert -1 not in positions
    assert positions == sorted(positions)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_has_a_severity_a_text_and_its_runbook(rule: Mapping[str, Any]) -> None:
    assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"docs/operating.md#{rule['alert'].lower()}"


# What these read is the same for all processes, or of no process.
OF_NO_PROCESS = {
    "TidemarkNoServer",
    "TidemarkVersionsMixed",
    "TidemarkBacklogUnknown",
    "TidemarkTimersLate",
    "TidemarkBackfillsLate",
    "TidemarkReservationsOverdue",
    "TidemarkRechargesUnreported",
    "TidemarkRechargePoliciesDisabled",
    "TidemarkFeedLate",
    "TidemarkOutboxLate",
    "TidemarkDeliveriesLate",
}


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_an_alert_says_of_which_instance_or_job_it_is(rule: Mapping[str, Any]) -> None:
    by = set(read(rule["expr"]).grouped_by)
    shown = {label for text in rule["annotations"].values() for label in re.findall(r"\$labels\.(\w+)", text)}
    if rule["alert"] in OF_NO_PROCESS:
        assert not shown & {"job", "instance"}
        return
    is_aggregated = re.search(r"\b(sum|max|min|avg|count)\b", rule["expr"]) is not None
    assert shown & {"job", "instance"}
    assert not is_aggregated or ("job" in by and shown <= by)


def test_the_example_of_prometheus_reads_the_rules_and_has_their_jobs() -> None:
    example = yaml.safe_load(PROMETHEUS.read_text())
    assert example["rule_files"] == [RULES.name]
    jobs = [job["job_name"] for job in example["scrape_configs"]]
    assert jobs == ["tidemark-server", "tidemark-notifier"]
    [down] = [rule["expr"] for rule in rules() if rule["alert"] == "TidemarkDown"]
    [expected] = re.findall(r'job=~"(.*)"', down)
    assert all(re.fullmatch(expected, job) for job in jobs)


@pytest.mark.parametrize("name", [path.stem for path in DASHBOARDS])
def test_a_dashboard_can_be_imported_into_any_grafana(name: str) -> None:
    dashboard = dashboards()[name]
    assert dashboard["uid"] == f"tidemark-{name}"
    assert "id" not in dashboard  # it would be that of another Grafana
    assert [one["name"] for one in dashboard["templating"]["list"]] == ["datasource", "instance"]
    every = [*dashboard["panels"], *panels(dashboard)]
    ids = {id(panel): panel["id"] for panel in every}
    assert len(set(ids.values())) == len(ids)
    for panel in panels(dashboard):
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["title"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


@pytest.mark.parametrize("name", [path.stem for path in DASHBOARDS])
def test_panels_do_not_overlap(name: str) -> None:
    places = [panel["gridPos"] for panel in dashboards()[name]["panels"]]
    for one, other in itertools.combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)


def streams() -> list[str]:
    """The streaming methods, as the label rpc_method has them."""
    services = [
        service
        for module in (
            account_service_pb2,
            alert_service_pb2,
            audit_service_pb2,
            limit_service_pb2,
            webhook_service_pb2,
        )
        for service in module.DESCRIPTOR.services_by_name.values()
    ]
    return [
        f"{service.full_name}/{method.name}"
        for service in services
        for method in service.methods
        if method.client_streaming or method.server_streaming
    ]


@pytest.mark.parametrize(
    "query", [one for one in queries() if "call_duration_seconds_bucket" in one.expression], ids=str
)
def test_a_duration_of_calls_leaves_out_every_stream(query: Query) -> None:
    [left_out] = re.findall(r'rpc_method!~"(.*?)"', query.expression)
    assert "tidemark.v1.AuditService/WatchAuditEntries" in streams()
    assert [method for method in streams() if not re.fullmatch(left_out, method)] == []


@pytest.mark.parametrize("query", queries(), ids=str)
def test_a_query_can_be_read(query: Query) -> None:
    assert read(query.expression).selectors


# What rules read and no panel needs, and why.
ON_NO_DASHBOARD = {
    "up": "it is of Prometheus, and shows processes that are away",
    "process_max_fds": "a limit that is far above the panel of open files",
    "tidemark_child_up": "a child that hangs is missing from the panel of what is ready",
}


def test_what_the_rules_read_is_on_a_dashboard() -> None:
    shown, ruled = set(), set()
    for query in queries():
        names = {selector.name for selector in read(query.expression).selectors}
        if query.place.startswith("rule "):
            ruled |= names
        else:
            shown |= names
    assert ruled - shown == ON_NO_DASHBOARD.keys()


def test_there_are_six_dashboards() -> None:
    assert sorted(dashboards()) == ["customers", "enforcement", "ingest", "notifier", "overview", "rules"]


needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed; Debian's package prometheus has it"
)


@needs_promtool
@pytest.mark.parametrize(
    "arguments", [["check", "rules", RULES.name], ["test", "rules", RULES_TEST.name]], ids=lambda value: value[0]
)
def test_promtool_accepts_the_rules(arguments: list[str]) -> None:
    promtool(*arguments, folder=RULES.parent)


@needs_promtool
def test_promtool_accepts_the_configuration_of_prometheus() -> None:
    promtool("check", "config", PROMETHEUS.name, folder=PROMETHEUS.parent)


@needs_promtool
def test_promtool_can_read_the_queries_of_the_dashboards(tmp_path: Path) -> None:
    replaced = [
        query.expression.replace("$__rate_interval", "5m").replace("$instance", ".*")
        for query in queries()
        if not query.place.startswith("rule ")
    ]
    assert len(replaced) > 100
    as_rules = [{"record": f"query:{number}", "expr": expression} for number, expression in enumerate(replaced)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": as_rules}]}))
    promtool("check", "rules", "rules.yaml", folder=tmp_path)


def promtool(*arguments: str, folder: Path) -> None:
    """Runs promtool, which has to find no fault."""
    assert PROMTOOL is not None
    ended = subprocess.run(
        [PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
