"""The files by which Grafana finds its data source and the dashboards fit the dashboards."""

import json
from pathlib import Path

import pytest
import yaml

from tests.support.deployment import DEPLOY

GRAFANA = DEPLOY / "monitoring" / "grafana"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))


def test_one_provider_reads_a_folder_of_dashboards() -> None:
    [provider] = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "tidemark.yaml").read_text())["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "/var/lib/grafana/dashboards")


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda path: path.stem)
def test_the_data_source_is_of_the_type_that_a_dashboard_asks_for(dashboard: Path) -> None:
    [source] = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "tidemark.yaml").read_text())["datasources"]
    variables = json.loads(dashboard.read_text())["templating"]["list"]
    assert [one["query"] for one in variables if one["type"] == "datasource"] == [source["type"]]
