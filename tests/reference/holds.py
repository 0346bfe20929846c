"""The reference model of enforcement: what reservations hold, what limits count, and what is admitted.

Slow and obvious on purpose: a counter is the sum of all events, found anew for each decision.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from tests.reference.balances import ZERO, Segment, Unit, Wallet
from tests.reference.gauges import Event

GRACE = timedelta(seconds=5)
DECIMALS = 10**18  # of an amount
NONE, SOFT, HARD = "NONE", "SOFT", "HARD"
DEFAULT, REJECT, CAP, OVERFLOW = "DEFAULT", "REJECT", "CAP", "OVERFLOW"
ALLOWED, CAPPED, DENIED = "ALLOWED", "CAPPED", "DENIED"
OPEN, SETTLED, RELEASED, EXPIRED = "OPEN", "SETTLED", "RELEASED", "EXPIRED"
MONTH, DAY, HOUR, ROLLING = "MONTH", "DAY", "HOUR", "ROLLING"
ROLLING_MINUTES = 60


class NotPossible(Exception):
    """The request is refused; the argument is why."""


@dataclass(frozen=True)
class Limit:
    """A limit of a customer or of a plan. groups: keys, each with a value, or None for all values."""

    holder: str
    of_plan: bool
    unit: Unit
    groups: tuple[tuple[str, str | None], ...]
    window: str
    amount: Fraction
    enforcement: str

    @property
    def limit_id(self) -> str:
        """Says what distinguishes it from others of its holder."""
        groups = "".join(f"-{key}:{value or '*'}" for key, value in self.groups)
        return f"{self.holder}-{self.unit[1]}{groups}-{self.window}"

    @property
    def kind(self) -> tuple[Unit, tuple[str, ...], str]:
        """Of the limits of one kind only one applies."""
        return self.unit, tuple(key for key, _ in self.groups), self.window

    def fits(self, event: Event) -> bool:
        """Whether it applies to usage with these properties."""
        properties = dict(event.properties)
        return all(key in properties and value in (None, properties[key]) for key, value in self.groups)


@dataclass(frozen=True)
class Meter:
    """What a limit counts. start: of its window; None: it rolls."""

    customer: str
    unit: Unit
    group: tuple[tuple[str, str], ...]
    window: str
    start: datetime | None


@dataclass(frozen=True)
class Met:
    """A limit that usage meets. level: 0 for the customer's own, 1 for its parent's and so on."""

    limit: Limit
    meter: Meter
    level: int


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
class Draws:
    """What a reservation took of balances in one unit: of what was given back before, of segments, and beyond."""

    unit: Unit
    amount: Fraction
    credit: Fraction = ZERO
    parts: list[tuple[Segment, Fraction]] = field(default_factory=list)


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


class HoldModel:
    """One organization. parents, plans: by customer, those that have one."""

    def __init__(self, now: datetime, parents: dict[str, str], plans: dict[str, str]) -> None:
        self.now = now
        self.parents = parents
        self.plans = plans
        self.limits: dict[str, Limit] = {}
        self.events: dict[tuple[str, str], Event] = {}
        self.holds: dict[tuple[str, str], Hold] = {}
        self.wallets: dict[str, Wallet] = {}

    def wallet(self, customer: str) -> Wallet:
        """The balances of a customer."""
        return self.wallets.setdefault(customer, Wallet())

    def advance(self, step: timedelta) -> None:
        """Time passes; reservations expire at the end of their grace."""
        self.now += step
        for hold in self.holds.values():
            if hold.state == OPEN and self.now >= hold.expire_time + GRACE:
                self._end(hold, EXPIRED)

    def send(self, event: Event, reservation_id: str | None = None) -> frozenset[Shown]:
        """Usage that happened, which may settle a reservation; returns the hard limits that it is over."""
        if (event.customer, event.event_id) in self.events:
            return frozenset()
        hold = self.holds.get((event.customer, reservation_id or ""))
        draws: list[Draws] = []
        if hold is not None and hold.state == OPEN and hold.usage.metric == event.metric:
            hold.state, draws = SETTLED, hold.draws
            hold.asked = event.quantity, event.cost
            hold.settled = Answer(ALLOWED, event.quantity, event.cost)
        self._count(event, draws)
        return frozenset(
            self._shown(met)
            for met, _ in self._charges(event)
            if met.limit.enforcement == HARD and self._taken(met.meter) > met.limit.amount
        )

    def void(self, customer: str, event_id: str) -> None:
        """Usage has not happened; its id can be used again. The customer must have no balances."""
        del self.events[customer, event_id]

    def check(self, usage: Event, policy: str) -> Answer:
        """A decision without an effect."""
        return self._decide(usage, policy)

    def reserve(self, reservation_id: str, usage: Event, policy: str, ttl: timedelta, content: object) -> Answer:
        """A reservation; the same again gets the first answer."""
        known = self.holds.get((usage.customer, reservation_id))
        if known is not None:
            if known.content != content:
                raise NotPossible("ReservationConflict")
            return known.answer
        if (usage.customer, reservation_id) in self.events:
            raise NotPossible("EventConflict")
        answer = self._decide(usage, policy)
        hold = Hold(usage, policy, answer, DENIED, self.now + ttl, content)
        self.holds[usage.customer, reservation_id] = hold
        if answer.outcome != DENIED:
            hold.state = OPEN
            granted = with_amounts(usage, answer.quantity, answer.cost)
            hold.charges = [(met.meter, amount) for met, amount in self._charges(granted) if amount]
            hold.draws = self._hold_balances(granted)
        return answer

    def settle(self, customer: str, reservation_id: str, quantity: Fraction | None, cost: Fraction | None) -> Answer:
        """The usage of a reservation; the same again gets the first answer."""
        hold = self._known(customer, reservation_id)
        granted = hold.answer.quantity, hold.answer.cost
        asked = (
            granted[0] if quantity is None else quantity,
            granted[1] if cost is None else cost,
        )
        if asked[1] is not None and hold.usage.cost is None:
            raise NotPossible("ReservationWithoutCost")
        if hold.settled is not None:
            if hold.asked != asked:
                raise NotPossible("ReservationEnded")
            return hold.settled
        if hold.state not in (OPEN, EXPIRED):
            raise NotPossible("EventConflict" if hold.conflict else "ReservationEnded")
        if (customer, reservation_id) in self.events:
            if hold.state == OPEN:
                self._end(hold, RELEASED)
                hold.conflict = True
            raise NotPossible("EventConflict")
        counted, refusal = asked, None
        if hold.state == OPEN and hold.policy in (REJECT, CAP):
            more = max(asked[0] - granted[0], ZERO)
            more_cost = None if asked[1] is None else max(asked[1] - (granted[1] or ZERO), ZERO)
            if more or more_cost:
                answer = self._decide(with_amounts(hold.usage, more, more_cost), hold.policy)
                if hold.policy == REJECT and answer.outcome == DENIED:
                    return answer
                if answer.outcome != ALLOWED:
                    refusal = answer.refused_by
                    counted = (
                        min(asked[0], granted[0] + answer.quantity),
                        None if asked[1] is None else min(asked[1], (granted[1] or ZERO) + (answer.cost or ZERO)),
                    )
        event = with_amounts(hold.usage, *counted, event_id=reservation_id)
        draws = hold.draws if hold.state == OPEN else []
        if hold.state == OPEN:
            hold.state = SETTLED
        over = self._over(event, (SOFT, HARD))
        self._count(event, draws)
        outcome = ALLOWED if refusal is None else CAPPED
        hold.asked, hold.settled = asked, Answer(outcome, *counted, refusal, over)
        return hold.settled

    def release(self, customer: str, reservation_id: str) -> None:
        """Gives back what a reservation holds."""
        hold = self._known(customer, reservation_id)
        if hold.state == OPEN:
            self._end(hold, RELEASED)
        elif hold.state not in (RELEASED, EXPIRED):
            raise NotPossible("ReservationEnded")

    def extend(self, customer: str, reservation_id: str, ttl: timedelta) -> None:
        """Lets a reservation expire later, or earlier."""
        hold = self._known(customer, reservation_id)
        if hold.state != OPEN:
            raise NotPossible("ReservationEnded")
        hold.expire_time = self.now + ttl

    def counted(self, meter: Meter) -> Fraction:
        """The sum of the usage that a meter counts."""
        return sum(
            (amount_in(event, meter.unit) for event in self.events.values() if self._counts(meter, event)), ZERO
        )

    def held(self, meter: Meter) -> Fraction:
        """What open reservations hold of a meter."""
        return sum((amount for one, amount in self.open_charges() if one == meter), ZERO)

    def open_charges(self) -> list[tuple[Meter, Fraction]]:
        """What all open reservations hold of meters."""
        return [charge for hold in self.holds.values() if hold.state == OPEN for charge in hold.charges]

    def _known(self, customer: str, reservation_id: str) -> Hold:
        if (customer, reservation_id) not in self.holds:
            raise NotPossible("ReservationNotFound")
        return self.holds[customer, reservation_id]

    def _end(self, hold: Hold, state: str) -> None:
        hold.state = state
        for draws in hold.draws:
            self._give_back(hold.usage.customer, draws, draws.amount)

    def _chain(self, customer: str) -> list[str]:
        chain = [customer]
        while chain[-1] in self.parents:
            chain.append(self.parents[chain[-1]])
        return chain

    def _counts(self, meter: Meter, event: Event) -> bool:
        if meter.customer not in self._chain(event.customer) or not set(meter.group) <= set(event.properties):
            return False
        if meter.unit[0] == "usage" and event.metric != meter.unit[1]:
            return False
        if meter.unit[0] == "cost" and event.currency != meter.unit[1]:
            return False
        if meter.start is None:
            return event.time >= first_minute(self.now)
        return window_start(meter.window, event.time) == meter.start

    def _taken(self, meter: Meter) -> Fraction:
        return self.counted(meter) + self.held(meter)

    def _met(self, usage: Event) -> Iterable[Met]:
        """Of limits that differ only in the values of their groups, the one that names most; own ones first."""
        for level, customer in enumerate(self._chain(usage.customer)):
            own = self._limits_of(customer, of_plan=False)
            plan = self._limits_of(self.plans.get(customer), of_plan=True)
            for kind in dict.fromkeys(one.kind for one in (*own, *plan)):
                unit, keys, window = kind
                if unit[1] not in (usage.metric, None if usage.cost is None else usage.currency):
                    continue
                fitting = [one for one in own if one.kind == kind and one.fits(usage)]
                fitting = fitting or [one for one in plan if one.kind == kind and one.fits(usage)]
                if not fitting:
                    continue
                best = max(fitting, key=lambda one: sum(value is not None for _, value in one.groups))
                if best.enforcement == NONE:
                    continue
                group = tuple((key, dict(usage.properties)[key]) for key in keys)
                start = None if window == ROLLING else window_start(window, usage.time)
                yield Met(best, Meter(customer, unit, group, window, start), level)

    def _limits_of(self, holder: str | None, *, of_plan: bool) -> list[Limit]:
        return [one for one in self.limits.values() if (one.holder, one.of_plan) == (holder, of_plan)]

    def _charges(self, usage: Event) -> list[tuple[Met, Fraction]]:
        return [(met, amount_in(usage, met.limit.unit)) for met in self._met(usage)]

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

    def _decide(self, usage: Event, policy: str) -> Answer:
        refusals: list[tuple[Fraction, int, str, Shown | str]] = []
        for met, amount in self._passed(usage):
            if met.limit.enforcement == HARD:
                share = max(ZERO, met.limit.amount - self._taken(met.meter)) / amount
                refusals.append((share, met.level, met.limit.limit_id, self._shown(met)))
        for unit, amount in wanted(usage):
            available = self._available(usage, unit)
            if available is not None and amount > available:
                # Of the same share, a limit is shown.
                refusals.append((max(ZERO, available) / amount, 99, "", "/".join(unit)))
        if not refusals or policy == OVERFLOW:
            return Answer(ALLOWED, usage.quantity, usage.cost, over=self._over(usage, (SOFT, HARD)))
        share, _, _, refused_by = min(refusals, key=lambda one: one[:3])
        quantity, cost = ZERO, None if usage.cost is None else ZERO
        if policy == CAP:
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
                    amount -= self._draw_held(event, held, amount)
            rest = with_amounts(event, ZERO, None)
            wallet.use(with_amounts(rest, amount, None) if unit[0] == "usage" else with_amounts(rest, ZERO, amount))

    def _draw_held(self, event: Event, draws: Draws, amount: Fraction) -> Fraction:
        """Draws what is held, and gives the rest back; returns what was drawn."""
        wallet = self.wallet(event.customer)
        self._give_back(event.customer, draws, max(draws.amount - max(amount, ZERO), ZERO))
        drawn = draws.credit
        wallet.held_credit[draws.unit] = wallet.held_credit.get(draws.unit, ZERO) - draws.credit
        wallet.overage[draws.unit] = wallet.overage.get(draws.unit, ZERO) + draws.credit
        for segment, part in draws.parts:
            segment.held -= part
            segment.drawn += part
            drawn += part
        return drawn

    def _available(self, usage: Event, unit: Unit) -> Fraction | None:
        """What balances can give; None: they need not, or can be overdrawn."""
        wallet = self.wallet(usage.customer)
        if not wallet.covers(unit, usage):
            return None
        order = wallet.order(unit, usage)
        if any(overdraws for _, overdraws in order):
            return None
        return wallet.credit(unit) + sum((max(ZERO, segment.remaining) for segment, _ in order), ZERO)

    def _hold_balances(self, usage: Event) -> list[Draws]:
        found = []
        wallet = self.wallet(usage.customer)
        for unit, amount in wanted(usage):
            if not wallet.covers(unit, usage):
                continue
            draws = Draws(unit, amount, credit=min(amount, wallet.credit(unit)))
            wallet.held_credit[unit] = wallet.held_credit.get(unit, ZERO) + draws.credit
            rest = amount - draws.credit
            order = wallet.order(unit, usage)
            for segment, _ in order:
                part = max(ZERO, min(rest, segment.remaining))
                rest -= part
                if part:
                    draws.parts.append((segment, part))
                segment.held += part
            beyond = [segment for segment, overdraws in order if overdraws]
            if beyond and rest:
                beyond[0].held += rest
                draws.parts.append((beyond[0], rest))
            found.append(draws)
        return found

    def _give_back(self, customer: str, draws: Draws, amount: Fraction) -> None:
        """Gives a part of a hold back: what no segment gave, then of the segments, the last one first."""
        wallet = self.wallet(customer)
        beyond = draws.amount - draws.credit - sum((part for _, part in draws.parts), ZERO)
        draws.amount -= amount
        amount -= min(amount, beyond)
        kept = []
        for segment, part in reversed(draws.parts):
            back = min(amount, part)
            amount -= back
            segment.held -= back
            if part > back:
                kept.append((segment, part - back))
        draws.parts = kept[::-1]
        draws.credit -= amount
        wallet.held_credit[draws.unit] = wallet.held_credit.get(draws.unit, ZERO) - amount


def wanted(usage: Event) -> list[tuple[Unit, Fraction]]:
    """The amounts of usage by unit, without those that are 0."""
    units: list[Unit] = [("usage", usage.metric), ("cost", usage.currency or "")]
    return [(unit, amount) for unit in units if (amount := amount_in(usage, unit))]


def amount_in(event: Event, unit: Unit) -> Fraction:
    """The amount of usage in a unit."""
    if unit[0] == "usage":
        return event.quantity
    return event.cost or ZERO


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


def window_start(window: str, time: datetime) -> datetime:
    """When the window that contains `time` starts, in UTC."""
    hour = time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if window == HOUR:
        return hour
    day = hour.replace(hour=0)
    return day if window == DAY else day.replace(day=1)


def first_minute(now: datetime) -> datetime:
    """The first minute of a rolling window."""
    return now.astimezone(UTC).replace(second=0, microsecond=0) - timedelta(minutes=ROLLING_MINUTES - 1)
