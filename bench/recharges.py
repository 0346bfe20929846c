"""recharges: what policies cost a commit in which 1,000 customers draw on their balances."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import psycopg
from rich.table import Table

from bench.support import cpu, load
from bench.support.figures import milliseconds
from bench.support.sending import NotCounted, channel
from bench.support.stack import PostgreSQL, Stack
from generated.tidemark.v1 import alert_service_pb2, usage_pb2
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub

CUSTOMERS = 1_000  # of each kind; each has one balance, and one event in each commit
ROUNDS = 12  # of each kind, in rotation; the first two do not count
WARM_UP = 2
TIMEOUT = 30.0  # seconds

NONE, QUIET, LOW = "none", "quiet", "low"
WORDS = {
    NONE: "no customer has a policy",
    QUIET: "each has one with caps, and enough remains",
    LOW: "the same, and each commit requests a recharge for each",
}

# One balance for each customer that the first usage has registered.
_BALANCES = """
INSERT INTO balance (
    organization_id, customer_id, balance_id, kind, currency, priority, contract_custom_fields, custom_fields,
    draw_down, allow_overage, draw_down_metric_ids, as_of_time, create_time, update_time
)
SELECT organization_id, customer_id, 'prepaid', 'CREDIT_GRANT', 'USD', 0, '{}', '{}', true, false, '{}', now(), now(),
    now()
FROM customer
"""
_SEGMENTS = """
INSERT INTO balance_segment (
    organization_id, customer_id, balance_id, segment_number, amount, adjusted, drawn, start_time, removed
)
SELECT organization_id, customer_id, balance_id, 1, 1000000, 0, 0, now() - interval '1 day', false FROM balance
"""
_WALLETS = """
INSERT INTO wallet (organization_id, customer_id, draw_units, has_recharge_policy)
SELECT organization_id, customer_id, '{cost/USD}', customer_id NOT LIKE 'none-%' FROM customer
ON CONFLICT (organization_id, customer_id)
    DO UPDATE SET draw_units = excluded.draw_units, has_recharge_policy = excluded.has_recharge_policy
"""
_POLICIES = """
INSERT INTO recharge_policy (
    organization_id, customer_id, balance_id, policy_id, below, up_to, min_amount, max_amount, max_count, cooldown,
    failure_cooldown, max_attempts, report_timeout, as_of_time, create_time, update_time, state, failed_attempts,
    last_sequence
)
SELECT organization_id, customer_id, 'prepaid', 'rcp_' || customer_id,
    CASE WHEN customer_id LIKE 'low-%' THEN 2000000 ELSE 20 END, 3000000, 0, 1000000000, 1000, '0', '0', 3, '7 days',
    now(), now(), now(), 'ENABLED', 0, 0
FROM customer WHERE customer_id NOT LIKE 'none-%'
"""
# As if the recharges of a round were paid: the next round requests others.
_PAID = (
    "UPDATE recharge SET state = 'PAID', paid_amount = 0 WHERE state = 'REQUESTED'",
    "UPDATE recharge_policy SET open_recharge_id = NULL, due_time = NULL WHERE open_recharge_id IS NOT NULL",
)
_REQUESTED = "SELECT count(*) FROM recharge WHERE state = 'REQUESTED'"


@dataclass
class Kind:
    """The commits of one kind. seconds: from a message to its answer. cpu: of server and database together."""

    name: str
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        used = 1e6 * statistics.median(self.cpu) / CUSTOMERS if self.cpu else None
        return {
            "commit_p50_ms": milliseconds(self.seconds, 0.5),
            "cpu_us_of_a_customer": None if used is None else round(used, 1),
        }


@dataclass(frozen=True)
class Report:
    """What was measured."""

    kinds: dict[str, Kind]

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {"customers": CUSTOMERS, **{name: kind.figures() for name, kind in self.kinds.items()}}

    def table(self) -> Table:
        """The same for people."""
        table = Table(title=f"a commit in which {CUSTOMERS:,} customers draw on a balance")
        table.add_column("recharge policies")
        table.add_column("commit, p50", justify="right")
        table.add_column("CPU of a customer", justify="right")
        for name, kind in self.kinds.items():
            found = kind.figures()
            used = found["cpu_us_of_a_customer"]
            table.add_row(WORDS[name], f"{found['commit_p50_ms']:.0f} ms", "–" if used is None else f"{used:.0f} µs")
        return table


async def measure(postgresql: PostgreSQL, report: Callable[[str], None]) -> Report:
    """Measures on its own database and server."""
    kinds = {name: Kind(name) for name in (NONE, QUIET, LOW)}
    async with postgresql.stack("bench_recharges") as stack:
        for name in kinds:
            await _send(stack, name, "first")
        with psycopg.connect(stack.url) as connection:
            for statement in (_BALANCES, _SEGMENTS, _WALLETS, _POLICIES):
                connection.execute(statement.encode())
        with psycopg.connect(stack.url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        for number in range(ROUNDS):
            for kind in kinds.values():
                await _round(stack, kind, number)
        for kind in kinds.values():
            report(f"{WORDS[kind.name]}: {kind.figures()}")
    return Report(kinds)


async def _round(stack: Stack, kind: Kind, number: int) -> None:
    backends = cpu.children(stack.postmaster_pid) if cpu.available() else []
    before = cpu.seconds(stack.server_pid, *backends)
    took = await _send(stack, kind.name, str(number))
    used = cpu.seconds(stack.server_pid, *backends) - before
    with psycopg.connect(stack.url) as connection:
        row = connection.execute(_REQUESTED).fetchone()
        wanted = CUSTOMERS if kind.name == LOW else 0
        if row != (wanted,):
            raise NotCounted(f"{row} recharges are open, {wanted} should be")
        for statement in _PAID:
            connection.execute(statement.encode())
    if number >= WARM_UP:
        kind.seconds.append(took)
        if cpu.available():
            kind.cpu.append(used)


async def _send(stack: Stack, kind: str, name: str) -> float:
    """Sends one event of each customer in one message; returns the seconds until its answer."""
    now = load.now()
    events = []
    for number in range(CUSTOMERS):
        event = usage_pb2.UsageEvent(
            event_id=f"{kind}-{name}-{number}",
            customer_id=f"{kind}-{number:06d}",
            metric_id=load.METRIC,
            quantity="1",
            cost="0.25",
            currency="USD",
        )
        event.event_time.FromDatetime(now + timedelta(microseconds=number))
        events.append(event)
    request = alert_service_pb2.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events))
    async with channel(stack.server) as over:
        stub = AlertServiceStub(over)
        await over.channel_ready()
        began = time.perf_counter()
        answer = await stub.EvaluateUsageBatch(request, timeout=TIMEOUT)
        took = time.perf_counter() - began
    if answer.outcome.accepted != CUSTOMERS:
        raise NotCounted(f"{answer.outcome.accepted} events were accepted, {CUSTOMERS} were sent")
    return took
