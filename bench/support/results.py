"""The files of results: JSON, one for each part."""

import json
from pathlib import Path
from typing import Any

from bench.support.machine import ROOT

LATEST = "latest"  # the results of a run without a part
RESULTS = ROOT / "bench" / "results"


def write(name: str, results: dict[str, Any]) -> Path:
    """Writes results to `results/NAME.json`; returns the path."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    return path


def of_part(part: str) -> Any | None:
    """The figures of a part, of its last run, or of the last run of all parts; None when there are none."""
    for name in (part, LATEST):
        path = RESULTS / f"{name}.json"
        if path.exists() and part in (found := json.loads(path.read_text())):
            return found[part]
    return None
