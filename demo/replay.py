"""The demo on real input: a trace is streamed as fast as possible; each gauge and each transition is checked."""

import asyncio
from decimal import Decimal
from pathlib import Path

import grpc

from cli.client.connection import UNARY_TIMEOUT
from cli.console import Problem
from demo import report, trace
from demo.comparison import Comparison
from demo.contract import create_alert, evaluated, put_facts
from demo.display import Display
from demo.expectation import Expectation
from demo.receiver import Received
from demo.stack import Stack, running
from demo.streams import UsageStreams
from demo.traffic import Sent
from demo.transitions import GaugeIdentity, gauge_identity
from generated.tidemark.v1.alert_service_pb2 import ListCustomerAlertsRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.usage_pb2 import UsageOutcome
from runtime.clock import Clock
from tidemark_client.usage.batches import Batch

PORTION = 1_000  # events that are given to the streams at a time
SENT_AGAIN = 5_000  # events that are sent a second time
SHOWN_TRANSITIONS = 12  # one by one, as they arrive
EXTRA_WAIT = 1.0  # seconds, for webhooks that are not expected

Sums = dict[GaugeIdentity, Decimal]  # by gauge


class Replay:
    """One run over one file."""

    def __init__(self, display: Display, clock: Clock, path: Path) -> None:
        self._display = display
        self._clock = clock
        try:
            self._trace = trace.read(path, clock.now())
        except trace.BadTrace as error:
            raise Problem(str(error)) from None
        self._customers = trace.customers(self._trace)
        self._events = list(trace.events(self._trace))
        self._comparison = Comparison(Expectation(self._customers, trace.METRICS, clock.now()))
        self._path = path
        self._transition_count = 0

    async def run(self, *, stays: bool = False) -> bool:
        """Runs all of it; returns whether everything was as expected. stays: until Ctrl-C, for the console."""
        show, comparison = self._display, self._comparison
        show.title(f"{len(self._trace.requests):,} real LLM requests of {self._path.name}")
        show.step(
            f"moved by {self._trace.shift_days:,} days; {len(self._customers)} customers; half of them begin a new"
            f" period at [name]{self._trace.middle:%d %b %H:%M}[/], in the middle of the file"
        )
        show.step("starting PostgreSQL, server, notifier and a webhook receiver in a temporary folder")
        async with running() as stack:
            show.step(f"console [name]{stack.console_url}[/]")
            stack.webhooks.on_received = self._received
            await put_facts(stack.channel, self._customers, trace.METRICS)
            for alert in trace.ALERTS:
                await evaluated(stack.channel, await create_alert(stack.channel, alert))
                comparison.expectation.create(alert, self._clock.now())
            show.alerts(trace.ALERTS)
            show.step("computing the expected result from the file alone")
            for event in self._events:
                comparison.sending(Sent(event))
            seconds = await self._stream(stack.channel)
            await stack.webhooks.wait_for(len(comparison.expectation.notified))
            await asyncio.sleep(EXTRA_WAIT)
            show.end()
            if self._transition_count > SHOWN_TRANSITIONS:
                show.step(f"and {self._transition_count - SHOWN_TRANSITIONS:,} more transitions, each in a webhook")

            right = await self._report(stack, seconds)
            stack.keep = not right
            if stays:
                show.console.print(
                    f"\n[good]look at all of it:[/] [name]{stack.console_url}[/]  [quiet]Ctrl-C ends[/]"
                )
                await stack.stay()
        return right

    async def _report(self, stack: Stack, seconds: float) -> bool:
        """Prints the report; returns whether everything was as expected. seconds: that the events took."""
        console, comparison = self._display.console, self._comparison
        states = await self._states(stack.channel)
        checks = (
            self._check_gauges(comparison.values, "answers", self._sums(current_only=False)),
            self._check_gauges(states, "customers' states", self._sums(current_only=True)),
        )
        right = report.print_report(console, trace.ALERTS, comparison, stack.webhooks, checks)
        rate = len(self._events) / seconds
        console.print(
            f"\n{len(self._events):,} events in {seconds:.1f} s: [number]{rate:,.0f} events/s[/], durable and"
            " evaluated, with every webhook sent and verified on the same machine meanwhile"
        )
        return right

    async def _stream(self, channel: grpc.aio.Channel) -> float:
        """Sends everything, and some of it again; returns the seconds that the first time took."""
        show = self._display
        show.step("streaming; each transition, when its webhook arrives:")
        show.begin(len(self._events))
        loop = asyncio.get_running_loop()
        streams = UsageStreams(channel, self._acknowledged, show.interrupted, include_gauges=True)
        began = loop.time()
        for start in range(0, len(self._events), PORTION):
            streams.send(self._events[start : start + PORTION])
            await asyncio.sleep(0)
        await streams.settle()
        seconds = loop.time() - began
        again = self._events[:SENT_AGAIN]
        streams.send(self._comparison.sending(Sent(event)) for event in again)
        await streams.settle()
        await streams.close()
        return seconds

    def _acknowledged(self, batch: Batch, outcome: UsageOutcome) -> None:
        self._comparison.acknowledge(batch, outcome)
        accepted = self._comparison.answered["accepted"]
        self._display.advance(
            accepted,
            f"[quiet]accepted[/] {accepted:,}  [quiet]transitions[/] {self._comparison.acknowledged.total():,}"
            f"  [quiet]webhooks[/] {self._transition_count:,}",
        )

    def _received(self, received: Received) -> None:
        for transition in received.transitions:
            self._transition_count += 1
            if self._transition_count <= SHOWN_TRANSITIONS:
                self._display.transition(transition, self._comparison.times.get(transition.event_id))

    def _sums(self, *, current_only: bool) -> Sums:
        """The sums over the file for every gauge without groups that an alert watches."""
        middle = self._trace.middle
        # Per customer, and for each subscription whose plan has an alert.
        metered = {
            customer.customer_id
            for customer in self._customers
            if any(subscription.plan == "metered" for subscription in customer.subscriptions)
        }
        found: Sums = {}
        for (customer, measured, current), value in trace.sums(self._trace).items():
            if current_only and not current:
                continue
            start = self._comparison.expectation.period_start(
                customer, middle if current else self._trace.requests[0].time
            )
            found[customer, "", measured, (), start] = value
            if measured == trace.TOKENS_OUT and customer in metered:
                found[customer, trace.SUBSCRIPTION, measured, (), start] = value
        return found

    async def _states(self, channel: grpc.aio.Channel) -> Sums:
        """The values that ListCustomerAlerts shows, of gauges without groups."""
        stub, found = AlertServiceStub(channel), Sums()
        for customer in self._customers:
            request = ListCustomerAlertsRequest(customer_id=customer.customer_id)
            response = await stub.ListCustomerAlerts(request, timeout=UNARY_TIMEOUT)
            for state in response.customer_alerts:
                for gauge in state.gauges:
                    found[gauge_identity(gauge.gauge)] = Decimal(gauge.gauge.value)
        return found

    @staticmethod
    def _check_gauges(found: Sums, where: str, expected: Sums) -> tuple[str, str]:
        """The check that gauges are what the plain sums over the file say."""
        ungrouped = {gauge: value for gauge, value in found.items() if not gauge[3]}
        wrong = [gauge for gauge in expected.keys() | ungrouped.keys() if expected.get(gauge) != ungrouped.get(gauge)]
        words = f"{len(expected):,} gauges in the {where} are the sums over the file, to the last digit"
        if not wrong:
            return words, ""
        first = min(wrong)
        return words, f"{len(wrong)} are not, such as {first}: {expected.get(first)} against {ungrouped.get(first)}"
