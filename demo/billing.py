"""The demo's second act: what a billing system posts, and what time brings, held against the plain ledger."""

import asyncio

import grpc

from demo.books import Books
from demo.contract import create_alert, evaluated, put_facts
from demo.fact_contract import post
from demo.fact_expectation import FactExpectation
from demo.fact_scenario import ALERTS, CUSTOMERS, script
from demo.lanes import Lanes
from demo.ledger import Ledger
from demo.posted import Wait
from demo.traffic import Sent
from demo.world import Event
from runtime.clock import Clock


class Billing:
    """One run of the script; what has to be told of it is added to the ledger's expectation."""

    def __init__(self, ledger: Ledger, clock: Clock, seed: int) -> None:
        self._ledger = ledger
        self._clock = clock
        self._seed = seed
        self._books = Books()
        self._expected = FactExpectation(self._books, ledger.expectation.crossings, ledger.expectation.told)

    async def prepare(self, channel: grpc.aio.Channel) -> None:
        """Registers the customers and creates the alerts; nobody holds anything yet."""
        await put_facts(channel, CUSTOMERS, ())
        for plan in ALERTS:
            await evaluated(channel, await create_alert(channel, plan))
            self._expected.watch(plan, self._clock.now())

    async def run(self, channel: grpc.aio.Channel, lanes: Lanes) -> None:
        """Carries out the script: usage in a row is streamed, what comes after it waits for its answers."""
        streamed: list[Event] = []
        for number, step in enumerate(script(self._clock.now, self._seed)):
            if isinstance(step, Event):
                self._expected.step(step, step.time)
                streamed.append(self._ledger.sending(Sent(step)))
                continue
            if streamed:
                lanes.send(streamed)
                await lanes.settle()
                streamed = []
            if isinstance(step, Wait):
                await asyncio.sleep((step.until - self._clock.now()).total_seconds())
                self._expected.step(step, step.until)
            else:
                self._expected.step(step, self._clock.now())
                await post(channel, step, number)
