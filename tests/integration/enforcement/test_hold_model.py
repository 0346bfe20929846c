"""Random reservations, usage, limits and balances on two servers: the engine does what the reference model says."""

import asyncio
import os
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from hypothesis import HealthCheck, given, settings

from engine.enforcement import requests
from engine.enforcement.expiry import Expiry
from engine.enforcement.requests import Decided
from engine.ingest.commit import Committer
from engine.rules.registry import RulesRegistry
from engine.rules.transaction import Transactions
from evaluator.amounts import format_decimal
from evaluator.enforcement.decisions import Decision, LimitState, OveragePolicy
from evaluator.enforcement.usage import Usage
from evaluator.events import SettlingEvent, UsageEvent
from generated.tidemark.v1 import account_service_pb2, customer_pb2, limit_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.reference.balances import Terms
from tests.reference.gauges import Event
from tests.reference.holds import (
    HARD,
    MONTH,
    NONE,
    OPEN,
    OVERFLOW,
    ROLLING,
    ROLLING_MINUTES,
    SOFT,
    Answer,
    HoldModel,
    Limit,
    NotPossible,
    Shown,
)
from tests.support.balances.holder import COMMIT, Holder
from tests.support.databases import NOON
from tests.support.enforcement.gateway import Gateway, Sender, gateway_of, put_limit
from tests.support.enforcement.hold_story import (
    ANN,
    CUSTOMERS,
    GOLD,
    PARENTS,
    PLANS,
    REGIONS,
    Adjust,
    Again,
    Ask,
    Delete,
    Extend,
    Put,
    PutBalance,
    Release,
    Reserve,
    Send,
    SendAgain,
    Settle,
    Use,
    Void,
    Wait,
    stories,
)
from tests.support.usage.caller import DEADLINE, Caller
from tests.support.usage.organizations import organization
from tests.support.usage.service import GRACE
from tests.support.usage.voiding import key, void

EXAMPLES = int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "12"))  # stories; hundreds take minutes
STEPS = int(os.environ.get("TIDEMARK_TEST_STEPS") or "30")  # of a story, at most
ENFORCEMENTS = {
    NONE: limit_pb2.LIMIT_ENFORCEMENT_NONE,
    SOFT: limit_pb2.LIMIT_ENFORCEMENT_SOFT,
    HARD: limit_pb2.LIMIT_ENFORCEMENT_HARD,
}
HUGE = Fraction(10**9)
_Request = requests.Reserve | requests.Settle | requests.Release | requests.Extend


class Run:
    """One story, carried out by the model and by two servers alike."""

    def __init__(self, caller: Caller, clock: ManualClock, database: Database, gateways: list[Gateway]) -> None:
        self.caller = caller
        self.model = HoldModel(clock.now(), dict(PARENTS), dict(PLANS))
        self._clock = clock
        self._gateways = gateways
        self._turn = 0
        self._sender = Sender(Committer(database, clock, GRACE, RulesRegistry(), gateways[0].organization))
        self._expiry = Expiry(database, clock, Transactions(database, clock, GRACE, RulesRegistry()))
        self._start = clock.now()
        self._holder = Holder(caller, ANN)
        self._requests: list[tuple[_Request, Reserve | Settle | Release | Extend, str]] = []
        self._made: list[tuple[str, str]] = []
        self._sent: list[tuple[UsageEvent, Event, str | None]] = []
        self._balances: dict[str, PutBalance] = {}

    async def begin(self) -> None:
        """The customers, parents first."""
        for customer in CUSTOMERS:
            await self.caller.put_customer(
                customer_pb2.Customer(
                    customer_id=customer,
                    parent_customer_id=PARENTS.get(customer, ""),
                    plan_id=PLANS.get(customer, ""),
                )
            )

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
                await self._put(change)
            case Delete() if self.model.limits:
                limit_id = list(self.model.limits)[-min(change.back, len(self.model.limits))]
                del self.model.limits[limit_id]
                request = account_service_pb2.DeleteLimitRequest(limit_id=limit_id)
                await self.caller.accounts.DeleteLimit(request, metadata=self.caller.metadata, timeout=DEADLINE)
            case PutBalance():
                await self._put_balance(change)
            case Adjust() if change.name in self._balances and change.amount:
                if self.model.wallet(ANN).adjust(change.name, change.amount, 1, self.model.now):
                    await self._holder.adjust(change.name, text(change.amount), f"a{self._turn}", 1)
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
            type(answer).__name__ if isinstance(answer, Exception) else self._shown_answer(answer)
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
                name, self._usage(one.use), OveragePolicy(one.policy), ttl=timedelta(seconds=one.seconds)
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
                    return self.model.reserve(name, self._event(name, one.use), one.policy, ttl, made)
                case Settle():
                    return self.model.settle(made.customer_id, name, one.quantity, one.cost)
                case Release():
                    self.model.release(made.customer_id, name)
                case Extend():
                    self.model.extend(made.customer_id, name, timedelta(seconds=one.seconds))
        except NotPossible as error:
            return str(error)
        return None

    def _shown_answer(self, answer: Decided) -> Answer | None:
        return None if answer.decision is None else self._shown_decision(answer.decision)

    def _shown_decision(self, decision: Decision) -> Answer:
        refused_by: Shown | str | None = None
        if decision.credit is not None:
            refused_by = decision.credit.unit.key
        elif decision.limit is not None:
            refused_by = shown(decision.limit)
        assert (decision.reason is None) == (refused_by is None)
        return Answer(
            decision.outcome.value,
            Fraction(decision.granted_quantity),
            None if decision.granted_cost is None else Fraction(decision.granted_cost),
            refused_by,
            frozenset(map(shown, decision.over)),
        )

    async def _send(self, send: Send) -> None:
        name, reservation_id, use = f"e{len(self._sent)}", None, send.use
        if send.settles is not None and self._made:
            customer, reservation_id = self._made[-min(send.settles, len(self._made))]
            use = Use(customer, max(use.quantity, Fraction(0)), use.cost, use.region, use.before)
        time = self.model.now - (use.before or timedelta())
        event = UsageEvent(
            name,
            use.customer,
            time,
            "calls",
            Decimal(int(use.quantity)),
            None,
            decimal(use.cost),
            None if use.cost is None else "USD",
            properties(use),
        )
        if reservation_id is not None:
            event = SettlingEvent.of(event, reservation_id)
        one = event, self._event(name, use), reservation_id
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
        """Balances are not in the model of voids."""
        events = [one for one in self.model.events if one[0] != ANN]
        if events:
            customer, event_id = events[-min(voided.back, len(events))]
            time = self.model.events[customer, event_id].time
            await void(self.caller, key(event_id, customer, time))
            self.model.void(customer, event_id)

    async def _put(self, put: Put) -> None:
        limit = Limit(put.holder, put.holder == GOLD, put.unit, put.groups, put.window, put.amount, put.enforcement)
        self.model.limits.pop(limit.limit_id, None)
        self.model.limits[limit.limit_id] = limit
        fields: dict[str, Any] = {"plan": GOLD} if limit.of_plan else {"customer": put.holder}
        if put.unit[0] == "cost":
            fields["currency"] = put.unit[1]
        if put.window == ROLLING:
            fields["window"] = {"rolling": {"duration": {"seconds": 60 * ROLLING_MINUTES}}}
        elif put.window != MONTH:
            fields["window"] = {"calendar": {"unit": f"CALENDAR_UNIT_{put.window}"}}
        await put_limit(
            self.caller,
            text(put.amount),
            limit.limit_id,
            enforcement=ENFORCEMENTS[put.enforcement],
            groups=[{"key": name, "value": value} if value else {"key": name} for name, value in put.groups],
            **fields,
        )

    async def _put_balance(self, put: PutBalance) -> None:
        """The unit of a balance never changes."""
        known = self._balances.setdefault(put.name, put)
        first, second = put.amounts
        later = self._start + known.ends
        spans: list[tuple[Fraction, datetime, datetime | None]] = [
            (first, NOON - timedelta(days=2), None),
            (second, NOON - timedelta(days=2), later),
        ]
        terms = Terms(put.name, "COMMIT", known.unit, known.priority, known.overdraws)
        self.model.wallet(ANN).put(terms, spans)
        await self._holder.put(
            put.name,
            kind=COMMIT,
            spans=[(text(amount), start, end) for amount, start, end in spans],
            currency=known.unit[1] if known.unit[0] == "cost" else "",
            metric=known.unit[1] if known.unit[0] == "usage" else "",
            priority=known.priority,
            allow_overage=known.overdraws,
        )

    def _usage(self, use: Use) -> Usage:
        time = None if use.before is None else self.model.now - use.before
        return Usage(
            use.customer,
            "calls",
            Decimal(int(use.quantity)),
            decimal(use.cost),
            None if use.cost is None else "USD",
            None,
            properties(use),
            time,
        )

    def _event(self, name: str, use: Use) -> Event:
        time = self.model.now - (use.before or timedelta())
        groups = tuple(sorted(properties(use).items()))
        return Event(name, use.customer, time, "calls", use.quantity, None, use.cost, "USD", groups)

    async def compare(self) -> None:
        """Every limit shows what the model counts and holds; so does every segment."""
        gateway = self._gateways[self._turn % len(self._gateways)]
        uses = [Use(customer, HUGE, HUGE, region, None) for customer in CUSTOMERS for region in (None, *REGIONS)]
        usages = [self._usage(use) for use in uses]
        expected = [self.model.check(self._event("", use), OVERFLOW) for use in uses]
        read = await gateway.checks.check(gateway.organization, usages, OveragePolicy.OVERFLOW)
        for use, wanted, one in zip(uses, expected, read, strict=True):
            assert isinstance(one, Decision)
            assert frozenset(map(shown, one.over)) == wanted.over, use
        rows = await self.caller.rows(
            "SELECT coalesce(sum(held), 0) FROM meter WHERE organization_id = %(organization_id)s"
        )
        assert Fraction(rows[0][0]) == sum(amount for _, amount in self.model.open_charges())
        wallet = self.model.wallet(ANN)
        segments = {
            (balance_id, number): segment
            for balance_id, balance in wallet.balances.items()
            for number, segment in balance.segments.items()
        }
        stored = await self._holder.segments()
        segments_found = {
            one: tuple(Fraction(text or "0") for text in (segment.remaining, segment.held, segment.drawn))
            for one, segment in stored.items()
        }
        assert segments_found == {
            one: (segment.remaining, segment.held, segment.drawn) for one, segment in segments.items()
        }
        overage = {name: Fraction(amount) for name, amount in (await self._holder.overage()).items() if amount}
        assert {name: amount for name, amount in overage.items() if amount} == {
            unit[1]: amount for unit, amount in wallet.overage.items() if amount
        }

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


def shown(state: LimitState) -> Shown:
    """A limit as the model shows it."""
    assert state.remaining == state.limit.amount - state.counted - state.held
    return Shown(state.limit.limit_id, Fraction(state.counted), Fraction(state.held))


def properties(use: Use) -> dict[str, str]:
    """The properties of usage."""
    return {} if use.region is None else {"region": use.region}


def decimal(amount: Fraction | None) -> Decimal | None:
    """An amount of a story: a multiple of a quarter."""
    return None if amount is None else Decimal(amount.numerator) / Decimal(amount.denominator)


def text(amount: Fraction) -> str:
    """An amount as callers write it."""
    return format_decimal(decimal(amount) or Decimal(0))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(story=stories(STEPS))
async def test_two_servers_equal_the_reference_model_for_random_holds(
    caller: Caller, clock: ManualClock, own_pool: Database, story: list[object]
) -> None:
    clock.set(NOON)
    name, secret = await organization(caller.database_url, clock)
    own = Caller(caller.server, clock, caller.database_url, name, secret)
    async with gateway_of(own, writers=1) as first, gateway_of(own, writers=1) as second:
        run = Run(own, clock, own_pool, [first, second])
        await run.begin()
        for number, change in enumerate(story, start=1):
            await run.change(change)
            if number == len(story) or number % 4 == 0:
                await run.compare()
        await run.end()
