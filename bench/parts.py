"""The parts of the benchmark: how each is measured with the options of the command line, and its results."""

from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from bench import (
    balances,
    batches,
    client,
    cost,
    gateway,
    ingest,
    latency,
    neighbours,
    notifier,
    quotas,
    recharges,
    replay,
    report,
    room,
    series,
    soak,
    sustained,
)
from bench import console as console_pages
from bench.enforcement import part as enforcement
from bench.enforcement import soak as enforcement_soak
from bench.mesh import part as mesh
from bench.mesh.rows import ROWS as MESH_ROWS
from bench.nodes import part as nodes
from bench.nodes.places import Named, parse_workers
from bench.nodes.visit import ROWS as NODES_ROWS
from bench.peers import report as peers
from bench.peers.definitions import PEERS
from bench.rules import part as rules
from bench.rules.scale import Scale
from bench.support import floods
from bench.support.load import DENSE, SPARSE
from bench.support.stack import PostgreSQL
from bench.views import report as views

Say = Callable[[str], None]  # prints a line of progress


@dataclass(frozen=True)
class Measured:
    """The result of a part: its figures for the file of results, and the same for people."""

    figures: Any
    tables: Sequence[Table]


@dataclass(frozen=True)
class Part:
    """A part. title: what it measures. rows: those that `--only` can name."""

    title: str
    measure: Callable[[PostgreSQL, Say, Namespace], Awaitable[Measured]]
    rows: Sequence[str] = ()


async def _ingest(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = []
    for kind in (DENSE, SPARSE):
        say(f"{kind.name}: {kind.gauges:,} gauges")
        found.append(await ingest.measure(postgresql, kind, say, workers=options.workers, native=not options.python))
    return Measured({one.kind.name: one.figures() for one in found}, [report.ingest_table(found)])


async def _batches(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await batches.measure(postgresql, say)
    return Measured(found.figures(), [found.table()])


async def _client(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await client.measure(postgresql, say, options.only)
    return Measured(found.figures(), [found.table()])


async def _latency(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    seconds = latency.SECONDS if options.part else latency.SHORT_SECONDS
    found = await latency.measure(postgresql, say, seconds)
    return Measured(found.figures(), [found.table()])


async def _cost(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    plan = cost.Plan(options.rate, options.days, options.core, options.gigabyte)
    found = await cost.measure(postgresql, say, plan)
    return Measured(found.figures(), [found.table(), found.price_table()])


async def _room(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await room.measure(postgresql, say)
    return Measured(found.figures(), [found.table()])


async def _peers(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await peers.measure_all(postgresql, say, options.only)
    return Measured(found.figures(), [found.table()])


async def _notifier(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await notifier.measure(postgresql, say)
    return Measured(found.figures(), [report.notifier_table(found)])


async def _balances(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await balances.measure(postgresql, say)
    return Measured(found.figures(), [report.balances_table(found), report.timers_table(found)])


async def _recharges(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await recharges.measure(postgresql, say)
    return Measured(found.figures(), [found.table()])


async def _neighbours(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await neighbours.measure(postgresql, say, options.only or tuple(floods.KINDS))
    return Measured(found.figures(), [found.table()])


async def _rules(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await rules.measure(postgresql, say, Scale(options.scale, options.alerts), options.only)
    return Measured(found.figures(), [found.table()])


async def _views(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await views.measure_all(postgresql, say, options.only)
    return Measured(found.figures(), [found.table()])


async def _mesh(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await mesh.measure(postgresql, say, options.only)
    return Measured(found.figures(), [found.table()])


async def _nodes(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    named = Named(options.plain, options.cluster, parse_workers(options.nodes))
    found = await nodes.measure(postgresql, say, named, options.servers, options.rounds, options.only)
    return Measured(found.figures(), found.tables())


async def _quotas(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await quotas.measure(postgresql, say)
    return Measured(found.figures(), [found.table()])


async def _console(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await console_pages.measure(postgresql, say)
    return Measured(found.figures(), [found.table()])


async def _series(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await series.measure(postgresql, say)
    return Measured(found.figures(), [found.table()])


async def _enforcement(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await enforcement.measure(postgresql, say, options.only)
    return Measured(found.figures(), [found.table()])


async def _enforcement_soak(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await enforcement_soak.measure(postgresql, options.minutes, say)
    return Measured(found.figures(), [found.table()])


async def _soak(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await soak.measure(postgresql, options.minutes, say)
    return Measured(found.figures(), [found.table()])


async def _sustained(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await sustained.measure(
        postgresql, say, events=options.events, seconds=options.seconds, stored=options.stored
    )
    return Measured(found.figures(), [found.table()])


async def _gateway(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await gateway.measure(postgresql, say)
    return Measured(found.figures(), [found.table()])


async def _replay(postgresql: PostgreSQL, say: Say, options: Namespace) -> Measured:
    found = await replay.measure(postgresql, say)
    return Measured(found.figures(), [found.table()])


PARTS: Mapping[str, Part] = {
    "ingest": Part("usage as fast as the server accepts it, beside a raw COPY", _ingest),
    "batches": Part("ingest by events of a message, streams and processes of the server", _batches),
    "client": Part("usage through the writers of the clients", _client, client.ROWS),
    "latency": Part("an event to its acknowledgement and its webhook", _latency),
    "cost": Part("CPU and disk of an event", _cost),
    "room": Part("bytes of a row of each table that grows, and an event that reaches a threshold", _room),
    "peers": Part("the same events and alerts in what a team would use instead", _peers, tuple(PEERS)),
    "notifier": Part("webhooks to receivers on this machine", _notifier),
    "balances": Part("usage that draws on balances, and timers", _balances),
    "recharges": Part("commits in which many customers draw on balances with recharge policies", _recharges),
    "neighbours": Part("the calls of one organization during the flood of another", _neighbours, tuple(floods.KINDS)),
    "rules": Part("many alerts and changes of rules", _rules, tuple(rules.ROWS)),
    "views": Part(
        "lists and views by the number of rows that they choose from",
        _views,
        (*views.METHODS, views.WATCHERS, views.NEW_METRICS),
    ),
    "mesh": Part("TLS, keys, metrics and many open streams", _mesh, tuple(MESH_ROWS)),
    "nodes": Part("CPU of an event by node: one PostgreSQL, a cluster of Citus", _nodes, NODES_ROWS),
    "gateway": Part("HTTP and JSON beside gRPC, CloudEvents, idle streams of events", _gateway),
    "replay": Part("files of usage through `tidemark replay`", _replay),
    "quotas": Part("calls and usage of an organization with quotas, by the number of its alerts", _quotas),
    "console": Part("pages of the console, by the number of customers and alerts", _console),
    "series": Part("curves of gauges and balances, by the number of events and entries", _series),
    "enforcement": Part("checks, reservations and settlements, beside other gates", _enforcement, enforcement.ROWS),
    "enforcement-soak": Part("minutes of reservations, compared with the stored events", _enforcement_soak),
    "soak": Part("minutes of steady traffic through a notifier", _soak),
    "sustained": Part("what an event costs while millions of them are stored", _sustained),
}
DEFAULT = ("ingest", "latency")  # the hot path
