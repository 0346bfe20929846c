"""The figures of the part `nodes`: medians over the rounds, and ratios of databases of the same round."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from bench.nodes.places import COORDINATOR, PLAIN
from bench.nodes.visit import ALONE, PACED, Reading
from bench.support.goals import Figure, Goal
from bench.support.goals import Report as Goals
from bench.support.load import DENSE, SPARSE

Round = Mapping[str, Mapping[str, Reading]]  # readings by the name of the place, and of the row
FULL_SPEED = (DENSE.name, SPARSE.name)

# Ratios to a plain PostgreSQL, and what a cluster that scales has to reach.
_TO_PLAIN = Goal(2.0, at_most=True)
_ALONE_TO_PLAIN = Goal(1.5, at_most=True)
_TWO_TO_ONE = Goal(1.8)
_COORDINATOR = Goal(1.0, at_most=True)


@dataclass(frozen=True)
class Report:
    """The rounds. workers: of each place, by its name, in their order. settings: of each node of each place."""

    workers: Mapping[str, int]
    servers: int
    rounds: Sequence[Round]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def rows(self) -> list[str]:
        """The rows that were measured."""
        return list(self.rounds[0][PLAIN])

    def median(self, place: str, row: str, figure: Callable[[Reading], float]) -> float:
        """The median of a figure over the rounds."""
        return statistics.median(figure(one[place][row]) for one in self.rounds)

    def ratio(self, place: str, to: str, row: str, figure: Callable[[Reading], float]) -> float:
        """The median of the ratios that a figure has in each round."""
        return statistics.median(figure(one[place][row]) / figure(one[to][row]) for one in self.rounds)

    def compared(self) -> list[Figure]:
        """The ratios within a round, with the goals of a cluster."""
        clusters = [name for name, workers in self.workers.items() if workers]
        found = []
        for row in self.rows():
            for name in clusters:
                found += self._to_plain(row, name)
            if len(clusters) > 1 and row in FULL_SPEED:
                one, more = clusters[0], clusters[-1]
                label = f"events/s by CPU of the busiest node, {more} ÷ {one}"
                goal = _TWO_TO_ONE if self.workers[more] == 2 else None
                found.append(Figure(row, label, self.ratio(one, more, row, _busiest), "", goal))
        return found

    def _to_plain(self, row: str, name: str) -> list[Figure]:
        if row in FULL_SPEED:
            ratio = self.ratio(name, PLAIN, row, _database)
            coordinator = self.median(name, row, _of_node(COORDINATOR))
            return [
                Figure(row, f"CPU of the database, {name} ÷ plain", ratio, "", _TO_PLAIN),
                Figure(row, f"CPU of the coordinator, {name}", coordinator, "µs", _COORDINATOR),
            ]
        label = "p50" if row == ALONE else "acknowledgement p50"
        ratio = self.ratio(name, PLAIN, row, _of_latency(label))
        goal = _ALONE_TO_PLAIN if row == ALONE else None
        return [Figure(row, f"{label}, {name} ÷ plain", ratio, "", goal)]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "servers": self.servers,
            "settings": self.settings,
            "rows": {row: {name: self._figures(name, row) for name in self.workers} for row in self.rows()},
            "ratios": [one.figures() for one in self.compared()],
        }

    def _figures(self, name: str, row: str) -> dict[str, Any]:
        first = self.rounds[0][name][row]
        found: dict[str, Any] = {
            "node_cpu_us": {node: round(self.median(name, row, _of_node(node)), 2) for node in first.nodes},
            "database_cpu_us": round(self.median(name, row, _database), 2),
            "server_cpu_us": round(self.median(name, row, _servers), 2),
        }
        if first.rate is not None:
            found["events_per_second"] = round(self.median(name, row, _rate))
        for label in first.milliseconds or ():
            key = f"{label.replace(' ', '_')}_ms"
            found[key] = round(self.median(name, row, _of_latency(label)), 2)
        return found

    def tables(self) -> list[Table]:
        """The figures for people."""
        found = [self._cpu_table()]
        if ALONE in self.rows() or PACED in self.rows():
            found.append(self._latency_table())
        if compared := self.compared():
            found.append(Goals("nodes: ratios within a round", compared, {}, {}).table())
        return found

    def _cpu_table(self) -> Table:
        nodes = list(
            dict.fromkeys(node for place in self.rounds[0].values() for one in place.values() for node in one.nodes)
        )
        table = Table(title=f"nodes: CPU of one event in µs, {self.servers} server(s)")
        table.add_column("row", no_wrap=True)
        table.add_column("database", no_wrap=True)
        for column in ("events/s", *nodes, "nodes in all", "servers"):
            table.add_column(column, justify="right")
        for row in self.rows():
            for name in self.workers:
                one = self._figures(name, row)
                cells = [f"{one['node_cpu_us'][node]:.1f}" if node in one["node_cpu_us"] else "" for node in nodes]
                rate = f"{one['events_per_second']:,}" if "events_per_second" in one else ""
                table.add_row(row, name, rate, *cells, f"{one['database_cpu_us']:.1f}", f"{one['server_cpu_us']:.1f}")
        return table

    def _latency_table(self) -> Table:
        table = Table(title="nodes: latency of lone events in ms")
        for column in ("row", "database", "latency"):
            table.add_column(column, no_wrap=True)
        table.add_column("ms", justify="right")
        for row in (ALONE, PACED):
            for name in self.workers if row in self.rows() else ():
                for label in self.rounds[0][name][row].milliseconds or ():
                    measured = self.median(name, row, _of_latency(label))
                    table.add_row(row, name, label, f"{measured:.1f}")
        return table


def _database(one: Reading) -> float:
    return one.database


def _busiest(one: Reading) -> float:
    return one.busiest


def _rate(one: Reading) -> float:
    assert one.rate is not None
    return one.rate


def _servers(one: Reading) -> float:
    return one.servers


def _of_node(name: str) -> Callable[[Reading], float]:
    return lambda one: one.nodes[name]


def _of_latency(label: str) -> Callable[[Reading], float]:
    def figure(one: Reading) -> float:
        assert one.milliseconds is not None
        return one.milliseconds[label]

    return figure
