"""The billing part of the demo: the script is carried out, and each step is expected by the reference model."""

import asyncio

import grpc

from demo.billing_contract import post
from demo.billing_scenario import ALERTS, CUSTOMERS, script
from demo.billing_steps import Wait
from demo.comparison import Comparison
from demo.contract import create_alert, evaluated, put_facts
from demo.definitions import Event
from demo.streams import UsageStreams
from demo.traffic import Sent
from runtime.clock import Clock


class Billing:
    """One run of the script. Its steps are added to the expectation of the comparison."""

    def __init__(self, comparison: Comparison, clock: Clock, seed: int) -> None:
        self._comparison = comparison
        self._clock = clock
        self._seed = seed

    async def prepare(self, channel: grpc.aio.Channel) -> None:
        """Registers the customers and creates the alerts, while there are no balances yet."""
        await put_facts(channel, CUSTOMERS, ())
        for alert in ALERTS:
            await evaluated(channel, await create_alert(channel, alert))
            self._comparison.expectation.create(alert, self._clock.now())

    async def run(self, channel: grpc.aio.Channel, streams: UsageStreams) -> None:
        """Carries out the script: usage is streamed, and acknowledged before the step after it."""
        expectation = self._comparison.expectation
        unsent: list[Event] = []
        for number, step in enumerate(script(self._clock.now, self._seed)):
            if isinstance(step, Event):
                expectation.take(step, step.time)
                unsent.append(self._comparison.sending(Sent(step)))
                continue
            if unsent:
                streams.send(unsent)
                await streams.settle()
                unsent = []
            if isinstance(step, Wait):
                await asyncio.sleep((step.until - self._clock.now()).total_seconds())
                expectation.take(step, step.until)
            else:
                expectation.take(step, self._clock.now())
                await post(channel, step, number)
