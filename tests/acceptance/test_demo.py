"""A short run of the demo: it checks its own totals and ends with 0."""

import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from generated.tidemark.v1.alert_pb2 import Alert

TIMEOUT = 180  # seconds
CONDITIONS = [field.name for field in Alert.DESCRIPTOR.oneofs_by_name["condition"].fields]

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "demo"]  # in the checkout: no package contains it


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*DEMO, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def shown(url: str) -> str:
    """A page of the console."""
    with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
        return str(answer.read().decode())


def run_with_console(*arguments: str) -> "tuple[subprocess.CompletedProcess[str], dict[str, str]]":
    """Runs the demo until Ctrl-C, which comes when pages of its console were read; these are returned, too."""
    command = [*DEMO, *arguments, "--console"]
    pages: dict[str, str] = {}
    lines: list[str] = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                if found := re.search(r"look at all of it: +(http://127\.0\.0\.1:\d+)/", line):
                    for path in ("/", "/customers", "/alerts", "/notifications"):
                        pages[path] = shown(found[1] + path)
                    process.send_signal(signal.SIGINT)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, "".join(lines), ""), pages


def test_the_demo_of_a_month_ends_with_the_expected_totals_and_shows_them_in_the_console() -> None:
    finished, pages = run_with_console("--events", "1200", "--seconds", "1", "--probe-seconds", "1", "--seed", "3")
    assert finished.returncode == 0, finished.stdout
    assert "<title>Overview · Tidemark</title>" in pages["/"]
    assert re.search('href="/customer[?]id=', pages["/customers"])
    assert re.search('href="/alerts/alt_', pages["/alerts"])
    assert re.search('href="/notifications/ntf_', pages["/notifications"])
    assert "everything happened exactly as expected" in finished.stdout
    assert "✗" not in finished.stdout
    received = re.search(r"^all +([\d,]+) +[\d,]+ +([\d,]+)", finished.stdout, re.MULTILINE)
    assert received is not None
    assert received.group(1) == received.group(2) != "0"
    for condition in CONDITIONS:
        row = re.search(rf"^{condition} +([1-9][\d,]*) +([\d,]+) +✓", finished.stdout, re.MULTILINE)
        assert row is not None, condition
        assert row.group(1) == row.group(2)
    for reason in ("EVENT_CONFLICT", "EVENT_INVALID", "EVENT_IN_FUTURE", "EVENT_TOO_OLD"):
        assert re.search(rf"rejected: {reason} +[1-9]", finished.stdout)
    assert "to its webhook's arrival p50" in finished.stdout


def test_the_demo_of_a_trace_ends_with_the_expected_totals(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    rows = (
        f"2023-11-16 18:{15 + number // 100:02}:{number % 60:02}.1234567,{20_000 + 37 * number},{1000 + number}\n"
        for number in range(2_000)
    )
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(rows))
    finished = run("--trace", str(path))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "everything happened exactly as expected" in finished.stdout
    assert re.search(r"accepted +4,000 +4,000", finished.stdout)
    assert "to the last digit" in finished.stdout
    assert "✗" not in finished.stdout


def test_the_demo_refuses_a_file_that_is_no_trace_before_it_starts_a_process(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("a,b\n1,2\n")
    finished = run("--trace", str(path))
    assert finished.returncode == 1
    assert "the first line" in finished.stderr
    assert "Traceback" not in finished.stderr
