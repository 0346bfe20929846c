"""The reference model of enforcement: what reservations hold, what limits count, and what is admitted.

Slow and obvious on purpose: a counter is the sum of all events, found anew for each decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

from tests.reference.balances import ZERO, Wallet
from tests.reference.enforced_limits import ALWAYS, HARD, SOFT, LimitModel, Met, Meter, first_minute
from tests.reference.gauges import COUNT, Event
from tests.reference.held_balances import Draws, amount_in, available, draw_held, give_back, hold, wanted

GRACE = timedelta(seconds=5)
DECIMALS = 10**18  # of an amount
DEFAULT, REJECT, CAP, OVERFLOW = "DEFAULT", "REJECT", "CAP", "OVERFLOW"
ALLOWED, CAPPED, DENIED = "ALLOWED", "CAPPED", "DENIED"
OPEN, SETTLED, RELEASED, EXPIRED = "OPEN", "SETTLED", "RELEASED", "EXPIRED"


class NotPossible(Exception):
    """The request is refused; the argument is why."""


@dataclass(frozen=True)
class Shown:
    """A limit as an answer shows it."""

    limit_id: str
    counted: Fraction
    held: Fraction


@dataclass(frozen=True)
class Answer:
    """A decision. refused_by: the limit, or the unit of the balances, that refused or capped it."""

    outcome: str
    quantity: Fraction
    cost: Fraction | None
    refused_by: Shown | str | None = None
    over: frozenset[Shown] = frozenset()


@dataclass
class Hold:
    """A reservation. usage: with the amounts that were asked for. asked: of its settlement.

    conflict: it was released because an event had its id when it was to be settled.
    """

    usage: Event
    policy: str
    answer: Answer
    state: str
    expire_time: datetime
    content: object
    charges: list[tuple[Meter, Fraction]] = field(default_factory=list)
    draws: list[Draws] = field(default_factory=list)
    asked: tuple[Fraction, Fraction | None] | None = None
    settled: Answer | None = None
    conflict: bool = False

    @property
    def granted(self) -> Event:
        """The usage with the amounts that were granted."""
        return with_amounts(self.usage, self.answer.quantity, self.answer.cost)


class HoldModel:
    """One organization.

    Its limits take effect when their meters are next used, by a decision or by usage: then the open reservations
    whose usage they count begin to hold a part of them. What a reservation holds, it holds until it ends, also where
    a limit does not count its usage any more.
    """

    def __init__(self, now: datetime, limits: LimitModel) -> None:
        self.now = now
        self.limits = limits
        self.events: dict[tuple[str, str], Event] = {}
        self.holds: dict[tuple[str, str], Hold] = {}
        self.wallets: dict[str, Wallet] = {}

    def wallet(self, customer: str) -> Wallet:
        """The balances of a customer."""
        return self.wallets.setdefault(customer, Wallet())

    def advance(self, step: timedelta) -> None:
        """Time passes; reservations expire at the end of their grace."""
        self.now += step
        for one in self.holds.values():
            if one.state == OPEN and self.now >= one.expire_time + GRACE:
                self._end(one, EXPIRED)

    def send(self, event: Event, reservation_id: str | None = None) -> frozenset[Shown]:
        """Usage that happened, which may settle a reservation; returns the hard limits that it is over."""
        self._use_meters(event)
        if (event.customer, event.event_id) in self.events:
            return frozenset()
        held = self.holds.get((event.customer, reservation_id or ""))
        draws: list[Draws] = []
        if held is not None and held.state == OPEN and held.usage.metric == event.metric:
            held.state, draws = SETTLED, held.draws
            held.asked = event.quantity, event.cost
            held.settled = Answer(ALLOWED, event.quantity, event.cost)
        self._count(event, draws)
        return frozenset(
            self._shown(met)
            for met, _ in self._charges(event)
            if met.limit.enforcement == HARD and self._taken(met.meter) > met.limit.amount
        )

    def void(self, customer: str, event_id: str) -> None:
        """Usage has not happened; its id can be used again. What it gives back to balances is not modelled."""
        self._use_meters(self.events.pop((customer, event_id)))

    def check(self, usage: Event, policy: str) -> Answer:
        """A decision without an effect."""
        self._use_meters(usage)
        return self._decide(usage, policy)

    def reserve(self, reservation_id: str, usage: Event, policy: str, ttl: timedelta, content: object) -> Answer:
        """A reservation; the same again gets the first answer."""
        self._use_meters(usage)
        known = self.holds.get((usage.customer, reservation_id))
        if known is not None:
            if known.content != content:
                raise NotPossible("ReservationConflict")
            return known.answer
        if (usage.customer, reservation_id) in self.events:
            raise NotPossible("EventConflict")
        answer = self._decide(usage, policy)
        made = Hold(usage, policy, answer, DENIED, self.now + ttl, content)
        self.holds[usage.customer, reservation_id] = made
        if answer.outcome != DENIED:
            made.state = OPEN
            made.charges = [(met.meter, amount) for met, amount in self._charges(made.granted) if amount]
            made.draws = hold(self.wallet(usage.customer), made.granted)
        return answer

    def settle(self, customer: str, reservation_id: str, quantity: Fraction | None, cost: Fraction | None) -> Answer:
        """The usage of a reservation; the same again gets the first answer."""
        held = self._known(customer, reservation_id)
        granted = held.answer.quantity, held.answer.cost
        asked = (
            granted[0] if quantity is None else quantity,
            granted[1] if cost is None else cost,
        )
        if asked[1] is not None and held.usage.cost is None:
            raise NotPossible("ReservationWithoutCost")
        if held.settled is not None:
            if held.asked != asked:
                raise NotPossible("ReservationEnded")
            return held.settled
        if held.state not in (OPEN, EXPIRED):
            raise NotPossible("EventConflict" if held.conflict else "ReservationEnded")
        if (customer, reservation_id) in self.events:
            if held.state == OPEN:
                self._end(held, RELEASED)
                held.conflict = True
            raise NotPossible("EventConflict")
        counted, refusal = asked, None
        if held.state == OPEN and held.policy in (REJECT, CAP):
            more = max(asked[0] - granted[0], ZERO)
            more_cost = None if asked[1] is None else max(asked[1] - (granted[1] or ZERO), ZERO)
            if more or more_cost:
                answer = self._decide(with_amounts(held.usage, more, more_cost), held.policy, is_more=True)
                if held.policy == REJECT and answer.outcome == DENIED:
                    return answer
                if answer.outcome != ALLOWED:
                    refusal = answer.refused_by
                    counted = (
                        min(asked[0], granted[0] + answer.quantity),
                        None if asked[1] is None else min(asked[1], (granted[1] or ZERO) + (answer.cost or ZERO)),
                    )
        event = with_amounts(held.usage, *counted, event_id=reservation_id)
        draws = held.draws if held.state == OPEN else []
        if held.state == OPEN:
            held.state = SETTLED
        over = self._over(event, (SOFT, HARD))
        self._count(event, draws)
        outcome = ALLOWED if refusal is None else CAPPED
        held.asked, held.settled = asked, Answer(outcome, *counted, refusal, over)
        return held.settled

    def release(self, customer: str, reservation_id: str) -> None:
        """Gives back what a reservation holds."""
        held = self._known(customer, reservation_id)
        if held.state == OPEN:
            self._end(held, RELEASED)
        elif held.state not in (RELEASED, EXPIRED):
            raise NotPossible("ReservationEnded")

    def extend(self, customer: str, reservation_id: str, ttl: timedelta) -> None:
        """Lets a reservation expire later, or earlier."""
        held = self._known(customer, reservation_id)
        if held.state != OPEN:
            raise NotPossible("ReservationEnded")
        held.expire_time = self.now + ttl

    def counted(self, meter: Meter) -> Fraction:
        """The sum of the usage that a meter counts."""
        first, limits = first_minute(self.now), self.limits
        counting = [event for event in self.events.values() if limits.counts(meter, event, first)]
        return sum((limits.amount(event, meter.unit) for event in counting), ZERO)

    def held(self, meter: Meter) -> Fraction:
        """What open reservations hold of a meter."""
        return sum((amount for one, amount in self.open_charges() if one == meter), ZERO)

    def open_charges(self) -> list[tuple[Meter, Fraction]]:
        """What all open reservations hold of meters."""
        return [charge for one in self.holds.values() if one.state == OPEN for charge in one.charges]

    def _use_meters(self, usage: Event) -> None:
        """The meters that usage moves: open reservations of usage that they count hold a part of them from now on."""
        for meter in [met.meter for met in self.limits.met(usage)]:
            for one in self.holds.values():
                if one.state != OPEN or meter in [known for known, _ in one.charges]:
                    continue
                amount = self.limits.amount(one.granted, meter.unit)
                if amount and self.limits.counts(meter, one.granted, ALWAYS[0]):
                    one.charges.append((meter, amount))

    def _known(self, customer: str, reservation_id: str) -> Hold:
        if (customer, reservation_id) not in self.holds:
            raise NotPossible("ReservationNotFound")
        known = self.holds[customer, reservation_id]
        self._use_meters(known.usage)
        return known

    def _end(self, held: Hold, state: str) -> None:
        held.state = state
        for draws in held.draws:
            give_back(self.wallet(held.usage.customer), draws, draws.amount)

    def _taken(self, meter: Meter) -> Fraction:
        return self.counted(meter) + self.held(meter)

    def _charges(self, usage: Event) -> list[tuple[Met, Fraction]]:
        return [(met, self.limits.amount(usage, met.limit.unit)) for met in self.limits.met(usage)]

    def _passed(self, usage: Event) -> list[tuple[Met, Fraction]]:
        return [
            (met, amount)
            for met, amount in self._charges(usage)
            if amount > 0 and self._taken(met.meter) + amount > met.limit.amount
        ]

    def _over(self, usage: Event, enforcements: Sequence[str]) -> frozenset[Shown]:
        return frozenset(self._shown(met) for met, _ in self._passed(usage) if met.limit.enforcement in enforcements)

    def _shown(self, met: Met) -> Shown:
        return Shown(met.limit.limit_id, self.counted(met.meter), self.held(met.meter))

    def _decide(self, usage: Event, policy: str, *, is_more: bool = False) -> Answer:
        """A decision. is_more: about what a settlement counts beyond what was granted, of the same event."""
        counts_events = self.limits.aggregations.get(usage.metric) == COUNT
        # The number of events is the same, so only the cost of more has to fit.
        of_cost = is_more and counts_events
        refusals: list[tuple[Fraction, int, str, Shown | str]] = []
        for met, amount in self._passed(usage):
            if met.limit.enforcement == HARD and (met.limit.unit[0] == "cost" or not of_cost):
                share = max(ZERO, met.limit.amount - self._taken(met.meter)) / amount
                refusals.append((share, met.level, met.limit.limit_id, self._shown(met)))
        for unit, amount in wanted(usage):
            left = available(self.wallet(usage.customer), usage, unit)
            if left is not None and amount > left and (unit[0] == "cost" or not of_cost):
                # Of the same share, a limit is shown.
                refusals.append((max(ZERO, left) / amount, 99, "", "/".join(unit)))
        if not refusals or policy == OVERFLOW:
            return Answer(ALLOWED, usage.quantity, usage.cost, over=self._over(usage, (SOFT, HARD)))
        share, _, _, refused_by = min(refusals, key=lambda one: one[:3])
        quantity, cost = ZERO, None if usage.cost is None else ZERO
        if policy == CAP and (of_cost or not counts_events):
            quantity = rounded_down(usage.quantity * share)
            cost = None if usage.cost is None else rounded_down(usage.cost * share)
        if not quantity and not cost:
            return Answer(DENIED, quantity, cost, refused_by)
        over = self._over(with_amounts(usage, quantity, cost), (SOFT,))
        return Answer(CAPPED, quantity, cost, refused_by, over)

    def _count(self, event: Event, draws: Sequence[Draws]) -> None:
        """Counts usage. It takes of balances first what is held for it, of the very segments."""
        self.events[event.customer, event.event_id] = event
        wallet = self.wallet(event.customer)
        for unit in (("usage", event.metric), ("cost", event.currency or "")):
            amount = amount_in(event, unit)
            for held in draws:
                if held.unit == unit:
                    amount -= draw_held(wallet, held, amount)
            rest = with_amounts(event, ZERO, None)
            wallet.use(with_amounts(rest, amount, None) if unit[0] == "usage" else with_amounts(rest, ZERO, amount))


def with_amounts(usage: Event, quantity: Fraction, cost: Fraction | None, event_id: str | None = None) -> Event:
    """The same usage with other amounts."""
    return Event(
        usage.event_id if event_id is None else event_id,
        usage.customer,
        usage.time,
        usage.metric,
        quantity,
        usage.subscription,
        cost,
        usage.currency,
        usage.properties,
    )


def rounded_down(amount: Fraction) -> Fraction:
    """The amount with as many decimals as amounts have."""
    return Fraction(amount * DECIMALS // 1, DECIMALS)
