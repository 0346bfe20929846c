"""The demo: a month of usage in some seconds, what a billing system posts, latency, and the reckoning."""

import asyncio
from itertools import islice

import grpc

from cli.client.batches import Batch
from demo import fact_scenario, latency, report, scenario
from demo.billing import Billing
from demo.contract import create_alert, evaluated, put_facts
from demo.display import Display
from demo.expectation import Expectation
from demo.lanes import Lanes
from demo.latency import Probe
from demo.ledger import Ledger
from demo.receiver import Received
from demo.stack import Stack, running
from demo.traffic import DAYS, Traffic
from demo.world import AlertPlan
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse
from runtime.clock import Clock

TICK = 0.1  # seconds between two helpings of events
AFTERMATH = 1.0  # seconds to wait for webhooks that nobody expects


class Month:
    """One run of the demo. count: events of the month; seconds: in which they are streamed."""

    def __init__(self, display: Display, clock: Clock, count: int, seconds: float, seed: int) -> None:
        now = clock.now()
        self._display = display
        self._clock = clock
        self._seconds = seconds
        self._count = count
        self._scenario = scenario.month(now)
        self._probed = latency.customers(clock)
        self._sent = list(Traffic(self._scenario.customers, now, count, seed))
        self._ledger = Ledger(
            Expectation((*self._scenario.customers, *self._probed), (*self._scenario.metrics, latency.METRIC))
        )
        self._billing = Billing(self._ledger, clock, seed)
        self._probe = Probe()
        self._quiet = False

    async def run(self, probe_seconds: float) -> bool:
        """Runs all of it; whether everything was as expected."""
        show, setting = self._display, self._scenario
        show.title(f"a month of {self._count:,} usage events, streamed in {self._seconds:g} seconds")
        show.step("starting PostgreSQL, server, notifier and a webhook receiver in a temporary folder")
        async with running() as stack:
            stack.receiver.on_received = self._received
            show.step(f"server [name]{stack.address.server}[/], receiver [name]{stack.receiver.url}[/]")
            await put_facts(stack.channel, (*setting.customers, *self._probed), (*setting.metrics, latency.METRIC))
            first = (*setting.alerts, latency.ALERT)
            for plan in first:
                await self._create(stack.channel, plan)
            show.alerts(first)
            show.step(
                f"streaming {DAYS} days of {len(setting.customers)} customers; what fires, as its webhook arrives:"
            )

            lanes = Lanes(stack.channel, self._acknowledged, show.interrupted)
            cut = int(len(self._sent) * scenario.LATER_AT)
            show.begin(len(self._sent))
            await self._stream(lanes, 0, cut)
            for plan in setting.later_alerts:
                await self._create(stack.channel, plan)
            show.alerts(setting.later_alerts)
            await self._stream(lanes, cut, len(self._sent))
            await stack.receiver.wait_for(len(self._ledger.expectation.told))
            show.end()
            await self._bill(stack, lanes)
            plans = [*setting.alerts, *setting.later_alerts, *fact_scenario.ALERTS]
            if probe_seconds:
                plans.append(latency.ALERT)
                show.step(f"measuring latency for {probe_seconds:g} seconds at {latency.RATE} events/s")
                self._quiet = True
                await self._probe.run(lanes, self._ledger, self._clock, probe_seconds)
                await stack.receiver.wait_for(len(self._ledger.expectation.told))
            await lanes.close()
            await asyncio.sleep(AFTERMATH)

            right = report.reckon(
                show.console, plans, self._ledger, stack.receiver, [report.all_conditions(plans, self._ledger)]
            )
            show.console.print()
            show.console.print(report.conditions_table(plans, self._ledger, stack.receiver))
            if probe_seconds:
                show.console.print(f"\n{report.latency_line(self._probe)}")
            stack.keep = not right
        return right

    async def _bill(self, stack: Stack, lanes: Lanes) -> None:
        show = self._display
        await self._billing.prepare(stack.channel)
        show.alerts(fact_scenario.ALERTS)
        ending = fact_scenario.SHORTLY.total_seconds()
        show.step(f"posting balances, seats, a licence, invoices and plans, some of which end in {ending:g} seconds")
        await self._billing.run(stack.channel, lanes)
        await stack.receiver.wait_for(len(self._ledger.expectation.told))

    async def _create(self, channel: grpc.aio.Channel, plan: AlertPlan) -> None:
        alert_id = await create_alert(channel, plan)
        await evaluated(channel, alert_id)
        self._ledger.expectation.watch(plan, self._clock.now())

    async def _stream(self, lanes: Lanes, start: int, end: int) -> None:
        """Sends a part of the month at the demo's pace, and waits for the answers."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        rate = len(self._sent) / self._seconds
        sent = islice(self._sent, start, end)
        done = start
        while done < end:
            due = start + int((loop.time() - began) * rate) + 1
            helping = list(islice(sent, max(0, min(due, end) - done)))
            lanes.send([self._ledger.sending(one) for one in helping])
            done += len(helping)
            self._show_progress(done)
            await asyncio.sleep(TICK)
        await lanes.settle()

    def _show_progress(self, done: int) -> None:
        ledger = self._ledger
        day = min(DAYS, done * DAYS // len(self._sent) + 1)
        self._display.advance(
            done,
            f"day {day} of {DAYS}  [quiet]accepted[/] {ledger.answered['accepted']:,}"
            f"  [quiet]duplicates[/] {ledger.answered['duplicate']:,}  [quiet]rejected[/] {ledger.rejected():,}",
        )

    def _acknowledged(self, batch: Batch, response: EvaluateUsageResponse) -> None:
        self._ledger.acknowledge(batch, response)
        self._probe.acknowledged(batch, response)

    def _received(self, received: Received) -> None:
        self._probe.received(received)
        if not self._quiet:
            for crossing in received.crossings:
                self._display.crossed(crossing, self._ledger.times.get(crossing.event_id))
