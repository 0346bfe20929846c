"""The demo on real input: a trace streamed as fast as it goes, every counter and every crossing checked."""

import asyncio
from decimal import Decimal
from pathlib import Path

import grpc

from cli.client.batches import Batch
from cli.client.connection import UNARY_TIMEOUT
from cli.console import Problem
from demo import report, trace
from demo.contract import create_alert, evaluated, put_facts
from demo.display import Display
from demo.expectation import Expectation
from demo.lanes import Lanes
from demo.ledger import GaugeIdentity, Ledger
from demo.receiver import Received
from demo.stack import running
from demo.told import gauge_identity
from demo.traffic import Sent
from generated.tidemark.v1.alert_service_pb2 import EvaluateUsageResponse, ListCustomerAlertsRequest
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from runtime.clock import Clock

HELPING = 1_000  # events that are handed to the streams at a time
SENT_AGAIN = 5_000  # events that are sent a second time
SHOWN_CROSSINGS = 12  # one by one, as they arrive
AFTERMATH = 1.0  # seconds to wait for webhooks that nobody expects

Sums = dict[GaugeIdentity, Decimal]


class Replayed:
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
        self._ledger = Ledger(Expectation(self._customers, trace.METRICS))
        self._path = path
        self._crossings = 0

    async def run(self) -> bool:
        """Runs all of it; whether everything was as expected."""
        show, ledger = self._display, self._ledger
        show.title(f"{len(self._trace.requests):,} real LLM requests of {self._path.name}")
        show.step(
            f"moved by {self._trace.shift_days:,} days; {len(self._customers)} customers; half of them begin a new"
            f" period at [name]{self._trace.middle:%d %b %H:%M}[/], in the middle of the file"
        )
        show.step("starting PostgreSQL, server, notifier and a webhook receiver in a temporary folder")
        async with running() as stack:
            stack.receiver.on_received = self._received
            await put_facts(stack.channel, self._customers, trace.METRICS)
            for plan in trace.ALERTS:
                await evaluated(stack.channel, await create_alert(stack.channel, plan))
                ledger.expectation.watch(plan, self._clock.now())
            show.alerts(trace.ALERTS)
            show.step("computing what has to happen, from the file alone")
            for event in self._events:
                ledger.sending(Sent(event))
            seconds = await self._stream(stack.channel)
            await stack.receiver.wait_for(len(ledger.expectation.told))
            await asyncio.sleep(AFTERMATH)
            show.end()
            if self._crossings > SHOWN_CROSSINGS:
                show.step(f"and {self._crossings - SHOWN_CROSSINGS:,} more crossings, each by a webhook")

            checks = (
                self._counters_checked(ledger.values, "answers", self._sums(current_only=False)),
                self._counters_checked(
                    await self._states(stack.channel), "customers' states", self._sums(current_only=True)
                ),
            )
            right = report.reckon(show.console, trace.ALERTS, ledger, stack.receiver, checks)
            rate = len(self._events) / seconds
            show.console.print(
                f"\n{len(self._events):,} events in {seconds:.1f} s: [number]{rate:,.0f} events/s[/], durable and"
                " evaluated, with every webhook sent and verified on the same machine meanwhile"
            )
            stack.keep = not right
        return right

    async def _stream(self, channel: grpc.aio.Channel) -> float:
        """Sends everything, and some of it again; returns the seconds that the first time took."""
        show = self._display
        show.step("streaming; what fires, as its webhook arrives:")
        show.begin(len(self._events))
        loop = asyncio.get_running_loop()
        lanes = Lanes(channel, self._acknowledged, show.interrupted, include_gauges=True)
        began = loop.time()
        for start in range(0, len(self._events), HELPING):
            lanes.send(self._events[start : start + HELPING])
            await asyncio.sleep(0)
        await lanes.settle()
        seconds = loop.time() - began
        again = self._events[:SENT_AGAIN]
        lanes.send(self._ledger.sending(Sent(event)) for event in again)
        await lanes.settle()
        await lanes.close()
        return seconds

    def _acknowledged(self, batch: Batch, response: EvaluateUsageResponse) -> None:
        self._ledger.acknowledge(batch, response)
        accepted = self._ledger.answered["accepted"]
        self._display.advance(
            accepted,
            f"[quiet]accepted[/] {accepted:,}  [quiet]crossings[/] {self._ledger.acknowledged.total():,}"
            f"  [quiet]webhooks[/] {self._crossings:,}",
        )

    def _received(self, received: Received) -> None:
        for crossing in received.crossings:
            self._crossings += 1
            if self._crossings <= SHOWN_CROSSINGS:
                self._display.crossed(crossing, self._ledger.times.get(crossing.event_id))

    def _sums(self, *, current_only: bool) -> Sums:
        """The sums over the file for every gauge without groups that an alert watches."""
        middle = self._trace.middle
        # Per customer, and for the subscription of those whose plan has an alert on it.
        metered = {
            customer.customer_id
            for customer in self._customers
            if any(subscription.plan == "metered" for subscription in customer.subscriptions)
        }
        found: Sums = {}
        for (customer, measured, current), value in trace.sums(self._trace).items():
            if current_only and not current:
                continue
            start = self._ledger.expectation.period_start(
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
    def _counters_checked(found: Sums, where: str, expected: Sums) -> tuple[str, str]:
        """The check that gauges are what the plain sums over the file say."""
        ungrouped = {gauge: value for gauge, value in found.items() if not gauge[3]}
        wrong = [gauge for gauge in expected.keys() | ungrouped.keys() if expected.get(gauge) != ungrouped.get(gauge)]
        words = f"{len(expected):,} counters in the {where} are the sums over the file, to the last digit"
        if not wrong:
            return words, ""
        first = min(wrong)
        return words, f"{len(wrong)} are not, such as {first}: {expected.get(first)} against {ungrouped.get(first)}"
