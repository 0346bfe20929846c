"""What balances hold and what alerts on facts read, computed a second time: a plain ledger, one step after the other.

Like the expectation of usage it shares no code with the evaluator, on purpose. Ratios and days are exact fractions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

from demo import posted, world
from demo.posted import Adjustment, Grant, PlanEnd, Posting, Step, Voiding, Wait
from demo.world import EVER, AlertPlan, Event

Group = tuple[tuple[str, str], ...]
Key = tuple[Group, datetime]  # a gauge of one alert and customer: its group and its period's start

LATEST = datetime.max.replace(tzinfo=UTC)
DAY = timedelta(days=1)

_COMMITS, _CREDITS = (posted.COMMIT,), (posted.CONTRACT_CREDIT,)
_GRANTS = (posted.CREDIT_GRANT,)
REMAINING, PERCENT, USED, DAYS_LEFT = "remaining", "percent", "used", "days"
LOOKS_AT = {
    world.LOW_REMAINING_DAYS_FOR_COMMIT_SEGMENT_REACHED: (_COMMITS, DAYS_LEFT),
    world.LOW_REMAINING_COMMIT_BALANCE_REACHED: (_COMMITS, REMAINING),
    world.LOW_REMAINING_COMMIT_PERCENTAGE_REACHED: (_COMMITS, PERCENT),
    world.LOW_REMAINING_DAYS_FOR_CONTRACT_CREDIT_SEGMENT_REACHED: (_CREDITS, DAYS_LEFT),
    world.LOW_REMAINING_CONTRACT_CREDIT_BALANCE_REACHED: (_CREDITS, REMAINING),
    world.LOW_REMAINING_CONTRACT_CREDIT_PERCENTAGE_REACHED: (_CREDITS, PERCENT),
    world.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_BALANCE_REACHED: (_COMMITS + _CREDITS, REMAINING),
    world.LOW_REMAINING_CONTRACT_CREDIT_AND_COMMIT_PERCENTAGE_REACHED: (_COMMITS + _CREDITS, PERCENT),
    world.LOW_REMAINING_SEAT_BALANCE_REACHED: ((posted.SEAT_CREDIT,), REMAINING),
    world.LOW_CREDIT_BALANCE_REACHED: (_GRANTS, REMAINING),
    world.LOW_REMAINING_CREDIT_PERCENTAGE_REACHED: (_GRANTS, PERCENT),
    world.CREDIT_BALANCE_DEPLETED: (_GRANTS, REMAINING),
    world.CREDIT_BALANCE_DROPPED: (_GRANTS, REMAINING),
    world.CREDIT_BALANCE_RECOVERED: (_GRANTS, REMAINING),
    world.LICENSE_BALANCE_THRESHOLD_REACHED: ((posted.LICENSE_ALLOTMENT,), USED),
}


@dataclass
class Part:
    """A segment: what was ever granted in it, what adjustments took, and what usage drew."""

    granted: Decimal
    start: datetime
    end: datetime | None
    taken: Decimal = Decimal(0)
    drawn: Decimal = Decimal(0)

    @property
    def remaining(self) -> Decimal:
        """What is left of it."""
        return self.granted - self.taken - self.drawn

    def there(self, time: datetime) -> bool:
        """Whether it counts at `time`."""
        return self.start <= time and (self.end is None or time < self.end)


@dataclass
class Balance:
    """A balance as it was put last, and its segments."""

    grant: Grant
    parts: list[Part]


class Books:
    """What each customer holds and owes. Must be told of everything in the order in which it happens."""

    def __init__(self) -> None:
        self.balances: dict[tuple[str, str], Balance] = {}
        self.overage: dict[tuple[str, str], Decimal] = {}
        self._invoices: dict[tuple[str, str], Posting] = {}
        self._plan_ends: dict[str, datetime] = {}
        self._seen: dict[str, set[Key]] = {}

    def book(self, step: Step) -> None:
        """Something is posted or used."""
        match step:
            case Grant():
                known = self.balances.get((step.customer, step.balance_id))
                before = known.parts if known else []
                parts = [Part(span.amount, span.start, span.end) for span in step.spans]
                for part, old in zip(parts, before, strict=False):
                    part.taken, part.drawn = old.taken, old.drawn
                self.balances[step.customer, step.balance_id] = Balance(step, parts)
            case Adjustment():
                part = self.balances[step.customer, step.balance_id].parts[0]
                if step.amount > 0:
                    part.granted += step.amount
                else:
                    part.taken -= step.amount
            case Voiding():
                del self.balances[step.customer, step.balance_id]
            case Posting():
                self._invoices[step.customer, step.invoice_id] = step
            case PlanEnd():
                self._plan_ends[step.customer] = step.end
            case Event():
                self._use(step.customer, step.currency, Decimal(step.cost or 0), step)
                self._use(step.customer, step.metric, Decimal(step.quantity), step)
            case Wait():
                pass

    def _use(self, customer: str, unit: str, amount: Decimal, event: Event) -> None:
        """Takes an amount from what the customer holds in a unit, or gives it back."""
        own = [
            balance
            for (owner, _), balance in self.balances.items()
            if owner == customer and unit == (balance.grant.currency or balance.grant.metric)
        ]
        if not own or not amount:
            return
        sources = [
            (balance.grant, number, part)
            for balance in own
            for number, part in enumerate(balance.parts)
            if part.there(event.time)
            and (balance.grant.seat is None or event.properties.get(balance.grant.seat[0]) == balance.grant.seat[1])
        ]
        sources.sort(
            key=lambda one: (
                one[0].seat is None,
                one[0].priority,
                one[2].end or LATEST,
                one[2].start,
                one[0].balance_id,
                one[1],
            )
        )
        beyond = self.overage.get((customer, unit), Decimal(0))
        if amount > 0:
            if beyond < 0:
                settled = min(amount, -beyond)
                beyond, amount = beyond + settled, amount - settled
            for _, _, part in sources:
                given = max(min(amount, part.remaining), Decimal(0))
                part.drawn, amount = part.drawn + given, amount - given
            beyond += amount
        else:
            settled = max(min(-amount, beyond), Decimal(0))
            beyond, amount = beyond - settled, amount + settled
            for _, _, part in reversed(sources):
                returned = min(-amount, part.drawn)
                part.drawn, amount = part.drawn - returned, amount + returned
            beyond += amount
        self.overage[customer, unit] = beyond

    def moments(self, customer: str, days: Iterable[Decimal]) -> Iterator[datetime]:
        """The times at which something begins or ends, or is so many days before its end."""
        ends = [self._plan_ends[customer]] if customer in self._plan_ends else []
        for (owner, _), balance in self.balances.items():
            if owner == customer:
                yield from (part.start for part in balance.parts)
                ends += [part.end for part in balance.parts if part.end is not None]
        yield from ends
        for end in ends:
            yield from (end - int(line * 86_400_000_000) * timedelta(microseconds=1) for line in days)

    def readings(self, plan: AlertPlan, time: datetime) -> dict[Key, Fraction]:
        """What an alert on facts reads at `time` on each gauge; what there is nothing to read of is left out."""
        if plan.condition == world.LOW_REMAINING_DAYS_IN_PLAN_REACHED:
            end = self._plan_ends.get(plan.customer)
            return {((), EVER): _days(end, time)} if end is not None and time <= end else {}
        if plan.condition == world.INVOICE_TOTAL_REACHED:
            return {
                ((("invoice_id", one.invoice_id),), EVER): _counted(one)
                for one in self._invoices_of(plan)
                if not plan.types or one.type in plan.types
            }
        if plan.condition == world.MONTHLY_INVOICE_TOTAL_SPEND_THRESHOLD_REACHED:
            totals: dict[Key, Fraction] = {}
            for one in self._invoices_of(plan):
                key = (), month_of(one.period_end)
                totals[key] = totals.get(key, Fraction(0)) + _counted(one)
            return totals
        kinds, what = LOOKS_AT[plan.condition]
        own = [one for one in self.balances.values() if one.grant.kind in kinds and _takes(plan, one.grant)]
        if what == DAYS_LEFT:
            return {
                ((("balance_id", one.grant.balance_id), ("segment_number", str(number))), EVER): _days(part.end, time)
                for one in own
                for number, part in enumerate(one.parts, 1)
                if part.end is not None and part.start <= time <= part.end
            }
        return self._sums(plan, what, own, time)

    def _sums(self, plan: AlertPlan, what: str, own: Iterable[Balance], time: datetime) -> dict[Key, Fraction]:
        seen = self._seen.setdefault(plan.name, set())
        if not plan.seat_key and not plan.divide_by and what != USED:
            seen.add(((), EVER))
        granted: dict[Key, Decimal] = {}
        remaining: dict[Key, Decimal] = {}
        for one in own:
            key = _group(plan, what, one.grant), EVER
            seen.add(key)
            active = [part for part in one.parts if part.there(time)]
            granted[key] = sum((part.granted for part in active), granted.get(key, Decimal(0)))
            remaining[key] = sum((part.remaining for part in active), remaining.get(key, Decimal(0)))
        if what == REMAINING:
            return {key: Fraction(remaining.get(key, Decimal(0))) for key in seen}
        shares = {key: Fraction(100 * remaining[key]) / Fraction(granted[key]) for key in granted if granted[key] > 0}
        return shares if what == PERCENT else {key: 100 - share for key, share in shares.items()}

    def _invoices_of(self, plan: AlertPlan) -> list[Posting]:
        return [
            one
            for (customer, _), one in self._invoices.items()
            if customer == plan.customer and one.currency == plan.measured
        ]


def month_of(period_end: datetime, zone: str = "UTC") -> datetime:
    """The start of the calendar month in which a period ended."""
    last = (period_end - timedelta(microseconds=1)).astimezone(ZoneInfo(zone))
    return last.replace(day=1, hour=0, minute=0, second=0, microsecond=0).astimezone(UTC)


def _counted(invoice: Posting) -> Fraction:
    return Fraction(0) if invoice.status == posted.VOID else Fraction(invoice.total)


def _days(end: datetime, time: datetime) -> Fraction:
    return Fraction((end - time) // timedelta(microseconds=1), 86_400_000_000)


def _takes(plan: AlertPlan, grant: Grant) -> bool:
    return (
        grant.customer == plan.customer
        and plan.measured in (world.DAYS, world.PERCENT, grant.currency, grant.metric)
        and (not plan.types or grant.type in plan.types)
        and (not plan.seat_key or (grant.seat is not None and grant.seat[0] == plan.seat_key))
        and (not plan.divide_by or plan.divide_by in grant.fields)
        and (plan.excluded is None or grant.fields.get(plan.excluded[0]) != plan.excluded[1])
    )


def _group(plan: AlertPlan, what: str, grant: Grant) -> Group:
    if grant.seat is not None:
        return (grant.seat,)
    if what == USED:
        return (("balance_id", grant.balance_id),)
    return ((plan.divide_by, grant.fields[plan.divide_by]),) if plan.divide_by else ()
