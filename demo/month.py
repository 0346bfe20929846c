"""The demo: a month of usage in some seconds, the billing script, a latency measurement, and the report."""

import asyncio
from itertools import islice

import grpc

from demo import billing_scenario, latency, report, scenario
from demo.billing import Billing
from demo.comparison import Comparison
from demo.contract import create_alert, evaluated, put_facts
from demo.definitions import AlertDefinition
from demo.display import Display
from demo.expectation import Expectation
from demo.latency import Probe
from demo.receiver import Received, VerifiedWebhooks
from demo.stack import Stack, running
from demo.streams import UsageStreams
from demo.traffic import DAYS, Traffic
from generated.tidemark.v1.usage_pb2 import UsageOutcome
from runtime.clock import Clock
from tidemark_client.usage.batches import Batch

TICK = 0.1  # seconds between two portions of events
EXTRA_WAIT = 1.0  # seconds, for webhooks that are not expected


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
        customers, metrics = (*self._scenario.customers, *self._probed), (*self._scenario.metrics, latency.METRIC)
        self._comparison = Comparison(Expectation(customers, metrics, now))
        self._billing = Billing(self._comparison, clock, seed)
        self._probe = Probe()
        self._quiet = False

    async def run(self, probe_seconds: float, *, stays: bool = False) -> bool:
        """Runs all of it; returns whether everything was as expected. stays: until Ctrl-C, for the console."""
        show, setting = self._display, self._scenario
        show.title(f"a month of {self._count:,} usage events, streamed in {self._seconds:g} seconds")
        show.step("starting PostgreSQL, server, notifier and a webhook receiver in a temporary folder")
        async with running() as stack:
            stack.webhooks.on_received = self._received
            show.step(f"server [name]{stack.address.server}[/], receiver [name]{stack.webhook_url}[/]")
            show.step(f"console [name]{stack.console_url}[/]")
            await put_facts(stack.channel, (*setting.customers, *self._probed), (*setting.metrics, latency.METRIC))
            first = (*setting.alerts, latency.ALERT)
            for alert in first:
                await self._create(stack.channel, alert)
            show.alerts(first)
            streams = UsageStreams(stack.channel, self._acknowledged, show.interrupted)
            await self._use(stack, streams)
            await self._bill(stack, streams)
            if probe_seconds:
                await self._measure(stack, streams, probe_seconds)
            await streams.close()
            await asyncio.sleep(EXTRA_WAIT)
            right = self._report(stack.webhooks, measured=bool(probe_seconds))
            stack.keep = not right
            if stays:
                show.console.print(
                    f"\n[good]look at all of it:[/] [name]{stack.console_url}[/]  [quiet]Ctrl-C ends[/]"
                )
                await stack.stay()
        return right

    async def _use(self, stack: Stack, streams: UsageStreams) -> None:
        """Streams the month, and creates some alerts during it."""
        show, setting = self._display, self._scenario
        count = len(setting.customers)
        show.step(f"streaming {DAYS} days of {count} customers; each transition, when its webhook arrives:")
        cut = int(len(self._sent) * scenario.LATER_AT)
        show.begin(len(self._sent))
        await self._stream(streams, 0, cut)
        for alert in setting.later_alerts:
            await self._create(stack.channel, alert)
        show.alerts(setting.later_alerts)
        await self._stream(streams, cut, len(self._sent))
        await self._all_webhooks(stack)
        show.end()

    async def _bill(self, stack: Stack, streams: UsageStreams) -> None:
        """Carries out the script of the billing system."""
        show = self._display
        await self._billing.prepare(stack.channel)
        show.alerts(billing_scenario.ALERTS)
        seconds = billing_scenario.TIME_TO_END.total_seconds()
        show.step(
            f"putting balances, seat credits, a licence, invoices and plan ends; some end in {seconds:g} seconds"
        )
        await self._billing.run(stack.channel, streams)
        await self._all_webhooks(stack)

    async def _measure(self, stack: Stack, streams: UsageStreams, seconds: float) -> None:
        """Measures latency for some seconds."""
        self._display.step(f"measuring latency for {seconds:g} seconds at {latency.RATE} events/s")
        self._quiet = True
        await self._probe.run(streams, self._comparison, self._clock, seconds)
        await self._all_webhooks(stack)

    async def _all_webhooks(self, stack: Stack) -> None:
        """Waits until all expected webhooks have arrived, or none arrives any more."""
        await stack.webhooks.wait_for(len(self._comparison.expectation.notified))

    def _report(self, webhooks: VerifiedWebhooks, *, measured: bool) -> bool:
        """Prints the report; returns whether everything was as expected."""
        alerts = [*self._scenario.alerts, *self._scenario.later_alerts, *billing_scenario.ALERTS]
        if measured:
            alerts.append(latency.ALERT)
        console, comparison = self._display.console, self._comparison
        checks = [report.all_conditions(alerts, comparison)]
        right = report.print_report(console, alerts, comparison, webhooks, checks)
        console.print()
        console.print(report.conditions_table(alerts, comparison, webhooks))
        if measured:
            console.print(f"\n{report.latency_line(self._probe)}")
        return right

    async def _create(self, channel: grpc.aio.Channel, alert: AlertDefinition) -> None:
        alert_id = await create_alert(channel, alert)
        await evaluated(channel, alert_id)
        self._comparison.expectation.create(alert, self._clock.now())

    async def _stream(self, streams: UsageStreams, start: int, end: int) -> None:
        """Sends a part of the month at the pace of the demo, and waits for the answers."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        rate = len(self._sent) / self._seconds
        sent = islice(self._sent, start, end)
        done = start
        while done < end:
            due = start + int((loop.time() - began) * rate) + 1
            portion = list(islice(sent, max(0, min(due, end) - done)))
            streams.send([self._comparison.sending(one) for one in portion])
            done += len(portion)
            self._show_progress(done)
            await asyncio.sleep(TICK)
        await streams.settle()

    def _show_progress(self, done: int) -> None:
        comparison = self._comparison
        day = min(DAYS, done * DAYS // len(self._sent) + 1)
        self._display.advance(
            done,
            f"day {day} of {DAYS}  [quiet]accepted[/] {comparison.answered['accepted']:,}"
            f"  [quiet]duplicates[/] {comparison.answered['duplicate']:,}"
            f"  [quiet]rejected[/] {comparison.rejected():,}",
        )

    def _acknowledged(self, batch: Batch, outcome: UsageOutcome) -> None:
        self._comparison.acknowledge(batch, outcome)
        self._probe.acknowledged(batch, outcome)

    def _received(self, received: Received) -> None:
        self._probe.received(received)
        if not self._quiet:
            for transition in received.transitions:
                self._display.transition(transition, self._comparison.times.get(transition.event_id))
