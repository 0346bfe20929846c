"""balances: how much the number of balances and seats of a customer slows down usage that draws on them."""

import asyncio
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import grpc
import psycopg

from bench import timers
from bench.support import cpu, holders, load
from bench.support.client import Client, Job
from bench.support.figures import milliseconds
from bench.support.sending import NotCounted, check, close_channels, create_alerts, evaluate_usage, open_channels
from bench.support.stack import PostgreSQL, Stack
from bench.timers import Timers
from generated.tidemark.v1 import alert_service_pb2, usage_pb2

SEATS = (1, 100, 10_000)  # of each customer that is measured
BALANCES = 1_000  # that each of them has beside its seats
BATCH_EVENTS = 500
BATCHES = 30  # of a round
IN_FLIGHT = 4  # batches that are sent and not yet answered
ROUNDS = 3  # the result is their median
SINGLE_EVENTS = 150  # sent one by one, each after the answer to the one before
PATIENCE = 60.0  # seconds for the backfill of an alert over all seats
GOAL = 1.5  # the cost of an event of the customer with most seats, divided by that of the customer with one seat


@dataclass(frozen=True)
class Sent:
    """The result of a job, as the client measured it. waited: seconds for each answer."""

    seconds: float
    accepted: int
    waited: list[float]


@dataclass
class Send(Job[Sent]):
    """Sends batches of usage of one customer. Half of the events belong to a seat.

    seats: of the customer. spread: each of these events belongs to a random seat; otherwise all of a batch belong to
    one seat.
    """

    server: str
    name: str
    customer: str
    seats: int
    spread: bool = False
    batches: int = BATCHES
    batch_events: int = BATCH_EVENTS
    in_flight: int = IN_FLIGHT
    _messages: list[bytes] = field(default_factory=list)
    _channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def prepare(self) -> None:
        """Encodes the messages and connects."""
        draw = random.Random(self.name)
        start = load.now()
        self._messages = [self._message(draw, number, start) for number in range(self.batches)]
        self._channels = await open_channels(self.server, 1)

    def _message(self, draw: random.Random, batch: int, start: datetime) -> bytes:
        seat = draw.randrange(self.seats)
        events = []
        for number in range(self.batch_events):
            if self.spread:
                seat = draw.randrange(self.seats)
            event = usage_pb2.UsageEvent(
                event_id=f"{self.name}-{batch}-{number}",
                customer_id=self.customer,
                metric_id=load.METRIC,
                quantity="1",
                cost=f"0.{draw.randint(1, 999):03}",
                currency=holders.CURRENCY,
            )
            if number % 2:
                event.properties[holders.SEAT_KEY] = holders.seat(seat)
            event.event_time.FromDatetime(start + timedelta(microseconds=number))
            events.append(event)
        return alert_service_pb2.EvaluateUsageRequest(
            batch=usage_pb2.UsageBatch(batch_id=str(batch), events=events)
        ).SerializeToString()

    async def run(self) -> Sent:
        """Sends all messages; the measured time ends with the last acknowledgement."""
        call = evaluate_usage(self._channels[0])
        room = asyncio.Semaphore(self.in_flight)
        sent: list[float] = []
        started = time.perf_counter()

        async def write() -> None:
            for message in self._messages:
                await room.acquire()
                sent.append(time.perf_counter())
                await call.write(message)
            await call.done_writing()

        writing = asyncio.create_task(write())
        accepted, waited = 0, list[float]()
        async for response in call:
            if response.heartbeat:
                continue
            waited.append(time.perf_counter() - sent[len(waited)])
            room.release()
            check(response)
            accepted += response.outcome.accepted
        await writing
        seconds = time.perf_counter() - started
        await close_channels(self._channels)
        return Sent(seconds, accepted, waited)


@dataclass
class MeasuredCustomer:
    """The figures of one customer. rates: events a second. cpu: microseconds of server and database for one event."""

    seats: int
    rates: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    spread_rates: list[float] = field(default_factory=list)
    spread_cpu: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)

    @property
    def customer(self) -> str:
        """The id of the customer."""
        return f"holder-{self.seats}"

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        return {
            "seats": self.seats,
            "balances": BALANCES,
            "events_per_second": round(statistics.median(self.rates)),
            "cpu_us": round(statistics.median(self.cpu), 1),
            "spread_events_per_second": round(statistics.median(self.spread_rates)),
            "spread_cpu_us": round(statistics.median(self.spread_cpu), 1),
            "single_event_p50_ms": milliseconds(self.single, 0.5),
            "single_event_p99_ms": milliseconds(self.single, 0.99),
            "rounds_events_per_second": [round(rate) for rate in self.rates],
        }


@dataclass(frozen=True)
class Report:
    """What was measured."""

    holders: Sequence[MeasuredCustomer]
    timers: Timers

    def figures(self) -> dict[str, Any]:
        """The figures for the file of results."""
        first, last = self.holders[0], self.holders[-1]
        return {
            "batch_events": BATCH_EVENTS,
            "batches_in_flight": IN_FLIGHT,
            "customers": [one.figures() for one in self.holders],
            "time_of_most_seats_to_one": round(statistics.median(first.rates) / statistics.median(last.rates), 2),
            "cpu_of_most_seats_to_one": round(statistics.median(last.cpu) / statistics.median(first.cpu), 2),
            "goal": GOAL,
            "timers": self.timers.figures(),
        }


async def measure(postgresql: PostgreSQL, report: Callable[[str], None]) -> Report:
    """Measures drawdown, then timers, each on its own database."""
    measured = [MeasuredCustomer(seats) for seats in SEATS]
    async with postgresql.stack("bench_balances") as stack:
        with Client() as client:
            await _prepare(client, stack, measured)
            for number in range(ROUNDS + 1):  # the first round warms up and does not count
                for one in measured:
                    for spread in (False, True):
                        await _round(client, stack, one, number, spread=spread)
                if number:
                    rates = ", ".join(f"{one.rates[-1]:,.0f}" for one in measured)
                    report(f"events/s with {', '.join(f'{one.seats:,}' for one in measured)} seats: {rates}")
            for one in measured:
                single = Send(
                    stack.server, f"one-{one.seats}", one.customer, one.seats, True, SINGLE_EVENTS, 1, in_flight=1
                )
                one.single = (await (await client.prepare(single))()).waited
        _verify(stack, measured)
    return Report(measured, await timers.measure(postgresql, report))


async def _prepare(client: Client, stack: Stack, measured: Sequence[MeasuredCustomer]) -> None:
    """Registers each customer with one event, then creates its balances and the alerts that watch them."""
    for one in measured:
        await (await client.prepare(Send(stack.server, "first", one.customer, one.seats, False, 1, 1)))()
    with psycopg.connect(stack.url) as connection:
        for one in measured:
            holders.grant(connection, [one.customer], BALANCES, one.seats)
    with psycopg.connect(stack.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    await create_alerts(stack.server, holders.alerts(), PATIENCE)


async def _round(client: Client, stack: Stack, one: MeasuredCustomer, number: int, *, spread: bool) -> None:
    name = f"{'spread' if spread else 'few'}-{number}-{one.seats}"
    run = await client.prepare(Send(stack.server, name, one.customer, one.seats, spread, BATCHES))
    backends = cpu.children(stack.postmaster_pid) if cpu.available() else []
    before = cpu.seconds(stack.server_pid, *backends)
    sent = await run()
    used = cpu.seconds(stack.server_pid, *backends) - before
    events = BATCHES * BATCH_EVENTS
    if sent.accepted != events:
        raise NotCounted(f"{sent.accepted} events were accepted, {events} were sent")
    if number:
        (one.spread_rates if spread else one.rates).append(events / sent.seconds)
        (one.spread_cpu if spread else one.cpu).append(1e6 * used / events)


def _verify(stack: Stack, measured: Sequence[MeasuredCustomer]) -> None:
    """Raises NotCounted unless balances and gauges contain exactly what was drawn."""
    with psycopg.connect(stack.url) as connection:
        for one in measured:
            used, drawn, remaining, gauge = holders.totals(connection, one.customer)
            if used != drawn or remaining != gauge:
                raise NotCounted(
                    f"{one.customer} used {used}, but {drawn} was drawn; {remaining} remains, the gauge is {gauge}"
                )
