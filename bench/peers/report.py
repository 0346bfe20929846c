"""The part `peers`: all peers, one after the other, and their results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench.peers import loads
from bench.peers.definitions import PEERS, TIDEMARK
from bench.peers.measuring import Measurement, measure
from bench.support.environment import Unavailable
from bench.support.figures import milliseconds
from bench.support.stack import PostgreSQL


@dataclass(frozen=True)
class Report:
    """measurements: by the name of the peer. unavailable: why a peer was not measured."""

    measurements: Mapping[str, Measurement]
    unavailable: Mapping[str, str]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        own = self.measurements.get(TIDEMARK)
        return {
            "goal": "the fastest peer that loses nothing ÷ Tidemark ≤ 0.5",
            "fastest_durable_to_tidemark": {
                kind.name: self._fastest(own, kind.name) for kind in loads.KINDS if own is not None
            },
            "peers": {name: _figures(name, one, own) for name, one in self.measurements.items()},
            "unavailable": dict(self.unavailable),
        }

    def _fastest(self, own: Measurement, kind: str) -> float | None:
        rates = [
            one.rates[kind]
            for name, one in self.measurements.items()
            if name != TIDEMARK and PEERS[name].durable and one.loss.lost == one.loss.twice == 0
        ]
        return round(max(rates) / own.rates[kind], 2) if rates else None

    def table(self) -> Table:
        """The figures as a table for people."""
        found = self.figures()
        table = Table(title="peers")
        table.add_column("peer", no_wrap=True)
        for name in ("dense/s", "sparse/s", "÷ Tidemark", "known p50", "p99", "lost", "twice"):
            table.add_column(name, justify="right", no_wrap=True)
        for one in found["peers"].values():
            table.add_row(
                one["title"],
                *(f"{one['events_per_second'][kind.name]:,}" for kind in loads.KINDS),
                "; ".join(f"{ratio:.2f}" for ratio in one["to_tidemark"].values()),
                *(f"{one[f'known_{share}_ms']:,.1f} ms" for share in ("p50", "p99")),
                f"{one['lost']:,} of {one['acknowledged']:,}",
                f"{one['counted_twice']:,}",
            )
        ratios = [f"{kind} {ratio}" for kind, ratio in found["fastest_durable_to_tidemark"].items()]
        missing = [f"; {name} was not measured: {reason}" for name, reason in self.unavailable.items()]
        table.caption = (
            f"the fastest that loses nothing ÷ Tidemark: {', '.join(ratios)}; goal ≤ 0.5{''.join(missing)}"
        )
        return table


def _figures(name: str, one: Measurement, own: Measurement | None) -> dict[str, Any]:
    return {
        "title": PEERS[name].title,
        "durable": PEERS[name].durable,
        "events_per_second": {kind: round(rate) for kind, rate in one.rates.items()},
        "to_tidemark": {kind: round(rate / own.rates[kind], 3) for kind, rate in one.rates.items()} if own else {},
        "known_p50_ms": milliseconds(one.delays, 0.5),
        "known_p99_ms": milliseconds(one.delays, 0.99),
        "known_samples": len(one.delays),
        "not_known": one.missed,
        "acknowledged": one.loss.acknowledged,
        "lost": one.loss.lost,
        "counted_twice": one.loss.twice,
    }


async def measure_all(postgresql: PostgreSQL, report: Callable[[str], None], only: Sequence[str] = ()) -> Report:
    """Measures Tidemark and the peers of these names (none: all of them). Those that cannot run here are left out."""
    events = loads.write(postgresql.folder)
    measurements: dict[str, Measurement] = {}
    unavailable: dict[str, str] = {}
    for name, peer in PEERS.items():
        if only and name not in (TIDEMARK, *only):
            continue
        try:
            measurements[name] = await measure(postgresql, name, peer, events, report)
        except Unavailable as error:
            unavailable[name] = str(error)
            report(f"{peer.title}: not measured: {error}")
    return Report(measurements, unavailable)
