"""One story of random reservations, carried out by the reference model and by two servers alike."""

import asyncio
from datetime import timedelta
from fractions import Fraction

from engine.enforcement import requests
from engine.enforcement.expiry import Expiry
from engine.ingest.commit import Committer
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from evaluator.enforcement.decisions import OveragePolicy
from evaluator.events import SettlingEvent, UsageEvent
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.reference.enforced_limits import LimitModel
from tests.reference.gauges import Event
from tests.reference.holds import OPEN, Answer, HoldModel, NotPossible
from tests.support.balances.holder import Holder
from tests.support.enforcement.gateway import Gateway, Sender
from tests.support.enforcement.hold_balances import Balances
from tests.support.enforcement.hold_comparison import compare
from tests.support.enforcement.hold_facts import Facts
from tests.support.enforcement.hold_story import (
    AGGREGATIONS,
    ANN,
    PARENTS,
    PLANS,
    Adjust,
    Again,
    Ask,
    ChangePlan,
    ChangeZone,
    Delete,
    Extend,
    Move,
    Put,
    PutBalance,
    Release,
    Reserve,
    Send,
    SendAgain,
    Settle,
    Subscribe,
    Use,
    Void,
    Wait,
)
from tests.support.enforcement.hold_usage import decimal, event_of, shown, shown_decision, usage_event_of, usage_of
from tests.support.usage.caller import DEADLINE, Caller
from tests.support.usage.service import GRACE
from tests.support.usage.voiding import key, void

_Request = requests.Reserve | requests.Settle | requests.Release | requests.Extend


class Run:
    """One story, carried out by the model and by two servers alike."""

    def __init__(self, caller: Caller, clock: ManualClock, database: Database, gateways: list[Gateway]) -> None:
        self.caller = caller
        self.limits = LimitModel(dict(PARENTS), dict(PLANS), AGGREGATIONS)
        self.model = HoldModel(clock.now(), self.limits)
        self._clock = clock
        self._gateways = gateways
        self._turn = 0
        self._sender = Sender(Committer(database, clock, GRACE, RulesRegistry(), gateways[0].organization))
        self._expiry = Expiry(database, clock, Transactions(database, clock, GRACE, RulesRegistry()))
        self._facts = Facts(caller, self.limits)
        self._balances = Balances(Holder(caller, ANN), self.model.wallet(ANN), clock.now())
        self._requests: list[tuple[_Request, Reserve | Settle | Release | Extend, str]] = []
        self._made: list[tuple[str, str]] = []
        self._sent: list[tuple[UsageEvent, Event, str | None]] = []

    async def begin(self) -> None:
        """The metric that counts events, and the customers, parents first."""
        await self._facts.begin()

    async def change(self, change: object) -> None:
        """Makes a change, and compares the answer."""
        match change:
            case Ask():
                await self._ask(change)
            case Send():
                await self._send(change)
            case SendAgain() if self._sent:
                await self._send_event(*self._sent[-min(change.back, len(self._sent))])
            case Void():
                await self._void(change)
            case Put():
                await self._facts.put(change)
            case Delete():
                await self._facts.delete(change)
            case Move() | ChangePlan() | ChangeZone() | Subscribe():
                await self._facts.change(change)
            case PutBalance():
                await self._balances.put(change)
            case Adjust():
                await self._balances.adjust(change, f"a{self._turn}", self.model.now)
            case Wait():
                await self.wait(change.step)
        self._turn += 1

    async def wait(self, step: timedelta) -> None:
        """Time passes. Reservations expire; the server of the caller, which has a sweep of its own, may be first."""
        self._clock.advance(step)
        self.model.advance(step)
        still_open = {key for key, hold in self.model.holds.items() if hold.state == OPEN}
        async with asyncio.timeout(DEADLINE):
            while True:
                await self._expiry.sweep()
                rows = await self.caller.rows(
                    "SELECT customer_id, reservation_id FROM reservation"
                    " WHERE organization_id = %(organization_id)s AND state = 'OPEN'"
                )
                if {tuple(row) for row in rows} == still_open:
                    return
                await asyncio.sleep(0.005)

    async def _ask(self, ask: Ask) -> None:
        asked = []
        for one in ask.requests:
            if isinstance(one, Again):
                if self._requests:
                    asked.append(self._requests[-min(one.back, len(self._requests))])
                continue
            made = self._request(one)
            if made is not None:
                asked.append(made)
                self._requests.append(made)
        gateway = self._gateways[self._turn % len(self._gateways)]
        expected = [self._expected(*one) for one in asked]
        answers = await gateway.pipeline.submit(gateway.organization, [one[0] for one in asked])
        found = [
            type(answer).__name__
            if isinstance(answer, Exception)
            else answer.decision and shown_decision(answer.decision)
            for answer in answers
        ]
        assert found == expected, asked

    def _request(
        self, one: Reserve | Settle | Release | Extend
    ) -> tuple[_Request, Reserve | Settle | Release | Extend, str] | None:
        if isinstance(one, Reserve):
            name = f"r{len(self._made)}"
            self._made.append((one.use.customer, name))
            made: _Request = requests.Reserve(
                name, usage_of(one.use, self.model.now), OveragePolicy(one.policy), ttl=timedelta(seconds=one.seconds)
            )
            return made, one, name
        if not self._made:
            return None
        customer, name = self._made[-min(one.back, len(self._made))]
        match one:
            case Settle():
                made = requests.Settle(customer, name, decimal(one.quantity), decimal(one.cost))
            case Release():
                made = requests.Release(customer, name)
            case Extend():
                made = requests.Extend(customer, name, ttl=timedelta(seconds=one.seconds))
        return made, one, name

    def _expected(self, made: _Request, one: Reserve | Settle | Release | Extend, name: str) -> Answer | str | None:
        try:
            match one:
                case Reserve():
                    assert isinstance(made, requests.Reserve)
                    ttl = timedelta(seconds=one.seconds)
                    return self.model.reserve(name, event_of(name, one.use, self.model.now), one.policy, ttl, made)
                case Settle():
                    return self.model.settle(made.customer_id, name, one.quantity, one.cost)
                case Release():
                    self.model.release(made.customer_id, name)
                case Extend():
                    self.model.extend(made.customer_id, name, timedelta(seconds=one.seconds))
        except NotPossible as error:
            return str(error)
        return None

    async def _send(self, send: Send) -> None:
        name, reservation_id, use = f"e{len(self._sent)}", None, send.use
        if send.settles is not None and self._made:
            customer, reservation_id = self._made[-min(send.settles, len(self._made))]
            subscription = use.subscription if customer == use.customer else None
            quantity = max(use.quantity, Fraction(0))
            use = Use(customer, quantity, use.cost, use.region, use.before, use.metric, subscription)
        event = usage_event_of(name, use, self.model.now)
        if reservation_id is not None:
            event = SettlingEvent.of(event, reservation_id)
        one = event, event_of(name, use, self.model.now), reservation_id
        self._sent.append(one)
        await self._send_event(*one)

    async def _send_event(self, event: UsageEvent, of_model: Event, reservation_id: str | None) -> None:
        """An event that is stored is a duplicate; one that was voided counts again."""
        is_new = (of_model.customer, of_model.event_id) not in self.model.events
        expected = self.model.send(of_model, reservation_id)
        outcome = await self._sender.send(event)
        assert outcome.accepted == is_new
        assert frozenset(map(shown, outcome.over_limits)) == expected

    async def _void(self, voided: Void) -> None:
        events = list(self.model.events)
        if events:
            customer, event_id = events[-min(voided.back, len(events))]
            event = self.model.events[customer, event_id]
            before = await self._balances.drawn()
            await void(self.caller, key(event_id, customer, event.time))
            self.model.void(customer, event_id)
            if customer == ANN:
                await self._balances.take_over_drawn(event, before)

    async def compare(self) -> None:
        """Limits and balances are as in the model."""
        await compare(self.model, self._gateways[self._turn % len(self._gateways)], self.caller)
        await self._balances.compare()

    async def end(self) -> None:
        """Nothing is held when all reservations have ended."""
        await self.wait(timedelta(minutes=11))
        assert not any(hold.state == OPEN for hold in self.model.holds.values())
        await self.compare()
        [[held]] = await self.caller.rows(
            "SELECT (SELECT count(*) FROM meter WHERE organization_id = %(organization_id)s AND held <> 0)"
            " + (SELECT count(*) FROM balance_segment WHERE organization_id = %(organization_id)s AND held <> 0)"
            " + (SELECT count(*) FROM reservation WHERE organization_id = %(organization_id)s AND state = 'OPEN')"
        )
        assert held == 0
