"""The part `nodes`: medians and ratios by node, its table, what the command line names, and the CPU of a tree."""

import os
import subprocess
import sys

import pytest

from bench.nodes.places import COORDINATOR, PLAIN, Named, parse_workers
from bench.nodes.report import Report, Round
from bench.nodes.visit import ALONE, ROWS, Reading
from bench.report import markdown
from bench.support import cpu


def place(dense: dict[str, float], alone: float) -> dict[str, Reading]:
    """The readings of one visit: CPU by node with dense traffic, and the median of a lone event."""
    return {
        "dense": Reading(1_000, dense, 9.0, rate=50_000.0),
        ALONE: Reading(100, dense, 900.0, milliseconds={"p50": alone, "p99": 5 * alone}),
    }


def visits(speed: float) -> Round:
    """A round of a machine of this speed: the slower it is, the more CPU everything takes."""
    return {
        PLAIN: place({PLAIN: 5.0 / speed}, 2.0 / speed),
        "1 worker": place({COORDINATOR: 1.0 / speed, "worker 1": 9.0 / speed}, 3.0 / speed),
        "2 workers": place({COORDINATOR: 1.0 / speed, "worker 1": 4.0 / speed, "worker 2": 5.0 / speed}, 4.0 / speed),
    }


WORKERS = {PLAIN: 0, "1 worker": 1, "2 workers": 2}


def measured(report: Report) -> dict[str, float]:
    """The ratios, by their names."""
    return {f"{one.row}: {one.name}": one.measured for one in report.compared()}


@pytest.mark.parametrize("speeds", [(1.0, 1.0, 1.0), (1.0, 0.5, 2.0)])
def test_ratios_are_those_within_a_round_whatever_the_speed_of_the_rounds(speeds: tuple[float, ...]) -> None:
    assert measured(Report(WORKERS, 1, [visits(speed) for speed in speeds])) == pytest.approx(
        {
            "dense: CPU of the database, 1 worker ÷ plain": 2.0,
            "dense: CPU of the coordinator, 1 worker": 1.0,
            "dense: CPU of the database, 2 workers ÷ plain": 2.0,
            "dense: CPU of the coordinator, 2 workers": 1.0,
            "dense: events/s by CPU of the busiest node, 2 workers ÷ 1 worker": 9.0 / 5.0,
            "alone: p50, 1 worker ÷ plain": 1.5,
            "alone: p50, 2 workers ÷ plain": 2.0,
        }
    )


def test_the_coordinator_is_the_busiest_node_where_it_has_most_to_do() -> None:
    through_it = {
        PLAIN: place({PLAIN: 5.0}, 2.0),
        "1 worker": place({COORDINATOR: 10.0, "worker 1": 9.0}, 3.0),
        "2 workers": place({COORDINATOR: 10.0, "worker 1": 4.5, "worker 2": 4.5}, 3.0),
    }
    found = measured(Report(WORKERS, 1, [through_it]))
    assert found["dense: events/s by CPU of the busiest node, 2 workers ÷ 1 worker"] == 1.0


def test_a_plain_database_has_no_ratios_and_a_table_without_columns_of_other_nodes() -> None:
    report = Report({PLAIN: 0}, 1, [{PLAIN: visits(1.0)[PLAIN]}])
    assert report.compared() == []
    cpu_table, latency = map(markdown, report.tables())
    assert "| dense | plain | 50,000 | 5.0 | 5.0 | 9.0 |" in cpu_table
    assert "| alone | plain | p50 | 2.0 |" in latency


def test_the_table_has_a_column_for_each_node() -> None:
    table = markdown(Report(WORKERS, 2, [visits(1.0)]).tables()[0])
    assert (
        "| row | database | events/s | plain | coordinator | worker 1 | worker 2 | nodes in all | servers |" in table
    )
    assert "| dense | 1 worker | 50,000 |  | 1.0 | 9.0 |  | 10.0 | 9.0 |" in table


def test_every_row_can_be_chosen() -> None:
    assert set(ROWS) == {"dense", "sparse", "alone", "paced"}


def test_workers_are_measured_alone_and_together() -> None:
    assert parse_workers(" 10.0.0.2:5432, [::1]:5433,") == [("10.0.0.2", 5432), ("[::1]", 5433)]
    assert Named(workers=parse_workers("a:1,b:2,c:3")).counts() == [1, 3]
    assert Named(workers=parse_workers("a:1")).counts() == [1]
    assert Named().counts() == []


@pytest.mark.parametrize("text", ["a", "a:", ":1", "a:b"])
def test_a_worker_without_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        parse_workers(text)


@pytest.mark.skipif(not cpu.available(), reason="this system has no /proc")
def test_a_tree_includes_children_that_have_ended() -> None:
    before = cpu.tree_seconds(os.getpid())
    own = cpu.seconds(os.getpid())
    busy = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", busy], check=True)
    spent_here = cpu.seconds(os.getpid()) - own
    assert cpu.tree_seconds(os.getpid()) - before - spent_here >= 0.15


@pytest.mark.skipif(not cpu.available(), reason="this system has no /proc")
def test_a_process_has_a_name_and_a_parent_until_it_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = cpu.parent(child.pid)
        assert found is not None
        assert found[1] == os.getpid()
        child.communicate(b"\n")
    assert cpu.parent(child.pid) is None
