"""The reference model of alerts on facts: balances, invoices and plans of one organization's customers.

Slow and obvious on purpose: whatever happens to a customer, all of its alerts are evaluated. Time passes in steps:
each time at which a reading can change is evaluated.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction

from tests.reference.balances import FOREVER, ZERO, Balance, Segment, Span, Terms, Unit, Wallet
from tests.reference.gauges import Event, Gauge, Group, Recorded
from tests.reference.periods import month_of_end
from tests.reference.thresholds import State, Threshold, Transition, follow, mark_silently

# What an alert reads: of balances, how much remains, how many percent remain or are used, and the days that a segment
# has left; of invoices, each total and the sum of a month; of a customer's plan, the days left.
REMAINING, PERCENT_REMAINING, PERCENT_USED, DAYS_LEFT = "remaining", "percent remaining", "percent used", "days left"
INVOICE_TOTAL, MONTH_TOTAL, PLAN_DAYS_LEFT = "invoice total", "month total", "plan days left"
DAYS = (DAYS_LEFT, PLAN_DAYS_LEFT)

ANY_METRIC = ("usage", "")  # the units of every metric
VOID = "VOID"  # the status of an invoice that counts as nothing

_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)

Place = tuple[Group, datetime | None]  # group and start of the period of a gauge of one alert and customer


@dataclass(frozen=True)
class FactAlert:
    """An alert on facts. rising: thresholds are reached from below.

    customer: the only one that is covered; None: all are. kinds, unit: of the balances or invoices that count; a unit
    of None is any, and ANY_METRIC is the units of every metric. types: of credit grants, licences or invoices; empty:
    all. seat_key: the property whose values are the seats. divide_by: a custom field whose values divide the
    balances. excluded: a field and a value that no balance may have. fields, contract: custom fields that a balance,
    and the contract of a balance or invoice, must have. starts_silent: what is reached at the first evaluation of a
    gauge is not recorded.
    """

    name: str
    reading: str
    thresholds: tuple[Threshold, ...]
    rising: bool = False
    customer: str | None = None
    kinds: frozenset[str] = frozenset()
    unit: Unit | None = None
    types: frozenset[str] = frozenset()
    seat_key: str | None = None
    divide_by: str | None = None
    excluded: tuple[str, str] | None = None
    fields: frozenset[tuple[str, str]] = frozenset()
    contract: frozenset[tuple[str, str]] = frozenset()
    starts_silent: bool = False

    @property
    def is_grouped(self) -> bool:
        """Whether balances are divided into groups, each with a gauge of its own."""
        return self.seat_key is not None or self.divide_by is not None or self.reading == PERCENT_USED

    def takes(self, terms: Terms) -> bool:
        """Whether it reads such a balance."""
        return (
            terms.kind in self.kinds
            and (self.unit in (None, terms.unit) or (self.unit == ANY_METRIC and terms.unit[0] == "usage"))
            and (not self.types or terms.type in self.types)
            and (terms.seat and terms.seat[0]) == self.seat_key
            and (self.divide_by is None or self.divide_by in terms.fields)
            and self.fields <= terms.fields.items()
            and self.contract <= terms.contract.items()
            and (self.excluded is None or terms.fields.get(self.excluded[0]) != self.excluded[1])
        )

    def takes_invoice(self, invoice: "Invoice") -> bool:
        """Whether it reads such an invoice."""
        return (
            ("cost", invoice.currency) == self.unit
            and (not self.types or invoice.type in self.types)
            and self.contract <= invoice.contract.items()
        )

    def group_of(self, terms: Terms) -> Group:
        """The group of the gauge that such a balance belongs to."""
        if terms.seat is not None:
            return (terms.seat,)
        if self.reading == PERCENT_USED:
            return (("balance_id", terms.balance_id),)
        return () if self.divide_by is None else ((self.divide_by, terms.fields[self.divide_by]),)


@dataclass(frozen=True)
class Invoice:
    """An invoice as it was posted last."""

    invoice_id: str
    type: str
    status: str
    currency: str
    total: Fraction
    period_end: datetime
    contract: Mapping[str, str] = field(default_factory=dict)

    @property
    def counted(self) -> Fraction:
        """What of it counts."""
        return ZERO if self.status == VOID else self.total


@dataclass
class Customer:
    """The facts of one customer."""

    wallet: Wallet = field(default_factory=Wallet)
    invoices: dict[str, Invoice] = field(default_factory=dict)
    plan_end: datetime | None = None


@dataclass
class GaugeState:
    """What an alert knows of a gauge. value: at the last evaluation; None: there was nothing to read."""

    value: Fraction | None = None
    state: State = field(default_factory=State)


class FactModel:
    """One organization. recorded: every transition."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.customers: dict[str, Customer] = {}
        self.alerts: list[FactAlert] = []
        self.recorded: list[Recorded] = []
        self._gauges: dict[tuple[str, Gauge], GaugeState] = {}
        self._seen: set[tuple[str, str]] = set()
        self._put: dict[tuple[str, str], tuple[Terms, tuple[Span, ...]]] = {}

    def wait_until(self, time: datetime) -> None:
        """Time passes."""
        for name, customer in self.customers.items():
            for moment in sorted({one for one in self._moments(name) if self.now < one <= time}):
                changing = {
                    balance_id
                    for balance_id, balance in customer.wallet.balances.items()
                    if not balance.void and moment in balance.times()
                }
                self._evaluate(name, self.alerts, moment, touched=changing)
        self.now = max(self.now, time)

    def create(self, alert: FactAlert) -> None:
        """An alert is created, and evaluated for every customer."""
        self.alerts.append(alert)
        for customer in self.customers:
            self._evaluate(customer, [alert], self.now)

    def register(self, customer: str) -> None:
        """A customer becomes known, if it is not yet."""
        if customer not in self.customers:
            self.customers[customer] = Customer()
            self._evaluate(customer, self.alerts, self.now)

    def commit(self, events: Iterable[Event]) -> int:
        """Usage draws on balances; events that were sent before do not. Returns the number of new events."""
        new: list[Event] = []
        for event in events:
            if event.identity not in self._seen:
                self._seen.add(event.identity)
                new.append(event)
        for event in new:
            self.register(event.customer)
        for event in new:
            self.customers[event.customer].wallet.use(event)
            self._evaluate(event.customer, self.alerts, self.now, event_id=event.event_id)
        return len(new)

    def put(self, customer: str, terms: Terms, spans: Sequence[Span]) -> None:
        """A balance is put."""
        new = customer not in self.customers
        wallet = self.customers.setdefault(customer, Customer()).wallet
        known = wallet.balances.get(terms.balance_id)
        put = terms, tuple(spans)
        if (known is not None and known.void) or self._put.get((customer, terms.balance_id)) == put:
            return
        self._put[customer, terms.balance_id] = put
        wallet.put(terms, spans)
        self._evaluate(customer, self.alerts, self.now, touched=None if new else {terms.balance_id})

    def adjust(self, customer: str, balance_id: str, amount: Fraction, number: int | None) -> bool:
        """A balance is adjusted; False: it cannot be."""
        if customer not in self.customers:
            return False
        if not self.customers[customer].wallet.adjust(balance_id, amount, number, self.now):
            return False
        self._evaluate(customer, self.alerts, self.now, touched={balance_id})
        return True

    def void(self, customer: str, balance_id: str) -> bool:
        """A balance ends; False: there is none."""
        if customer not in self.customers or balance_id not in self.customers[customer].wallet.balances:
            return False
        balance = self.customers[customer].wallet.balances[balance_id]
        if not balance.void:
            balance.void = True
            self._evaluate(customer, self.alerts, self.now, touched={balance_id})
        return True

    def post_invoice(self, customer: str, invoice: Invoice) -> None:
        """An invoice is put."""
        self.customers[customer].invoices[invoice.invoice_id] = invoice
        self._evaluate(customer, self.alerts, self.now)

    def end_plan(self, customer: str, end: datetime) -> None:
        """The end of a customer's plan is put."""
        self.customers[customer].plan_end = end
        self._evaluate(customer, self.alerts, self.now)

    def readings(
        self, alert: FactAlert, customer: str, time: datetime, touched: Collection[str] | None = None
    ) -> dict[Place, Fraction | None]:
        """What an alert reads of a customer at `time`; None: nothing was granted of which a share could remain.

        touched: the ids of the balances that have just changed; None: anything may have.
        """
        if alert.reading == PLAN_DAYS_LEFT:
            end = self.customers[customer].plan_end
            return {((), None): _days(end, time)} if end is not None and time <= end else {}
        if alert.reading in (INVOICE_TOTAL, MONTH_TOTAL):
            return self._totals(alert, customer)
        balances = [one for one in self.customers[customer].wallet.balances.values() if alert.takes(one.terms)]
        if alert.reading == DAYS_LEFT:
            return {
                ((("balance_id", one.terms.balance_id), ("segment_number", str(number))), None): _days(
                    segment.end, time
                )
                for one in balances
                if not one.void
                for number, segment in one.segments.items()
                if not segment.removed and segment.start <= time <= segment.end < FOREVER
            }
        groups: dict[Group, list[Balance]] = {} if alert.is_grouped else {(): []}
        for one in balances:
            groups.setdefault(alert.group_of(one.terms), []).append(one)
        return {
            (group, None): _share(alert.reading, [segment for one in held for segment in one.active(time)])
            for group, held in groups.items()
            if not alert.is_grouped or self._has_gauge(alert, customer, group, time, held, touched)
        }

    def _totals(self, alert: FactAlert, customer: str) -> dict[Place, Fraction | None]:
        found: dict[Place, Fraction | None] = {}
        for one in self.customers[customer].invoices.values():
            if alert.takes_invoice(one):
                if alert.reading == INVOICE_TOTAL:
                    found[(("invoice_id", one.invoice_id),), None] = one.counted
                else:
                    month = (), month_of_end(one.period_end)
                    found[month] = (found.get(month) or ZERO) + one.counted
        return found

    def _has_gauge(
        self,
        alert: FactAlert,
        customer: str,
        group: Group,
        time: datetime,
        held: Sequence[Balance],
        touched: Collection[str] | None,
    ) -> bool:
        """Whether a group has a gauge. Before a seat's credit begins, for example, the seat is not empty yet."""
        if (alert.name, _gauge(alert, customer, (group, None))) in self._gauges:
            return True
        changed = touched is not None and any(one.terms.balance_id in touched for one in held)
        return any(one.active(time) for one in held) or (changed and any(one.begun(time) for one in held))

    def _moments(self, customer: str) -> Iterator[datetime]:
        """When readings of the customer can change by themselves."""
        facts = self.customers[customer]
        ends = [] if facts.plan_end is None else [facts.plan_end]
        for balance in facts.wallet.balances.values():
            yield from balance.times()
            ends += [one.end for one in balance.segments.values() if not one.removed]
        yield from ends
        days = {
            one.value
            for alert in self.alerts
            if alert.reading in DAYS and alert.customer in (None, customer)
            for one in alert.thresholds
            if one.value is not None
        }
        yield from (end - int(number * (_DAY // _MICROSECOND)) * _MICROSECOND for end in ends for number in days)

    def _evaluate(
        self,
        customer: str,
        alerts: Iterable[FactAlert],
        time: datetime,
        *,
        touched: Collection[str] | None = None,
        event_id: str | None = None,
    ) -> None:
        for alert in alerts:
            if alert.customer in (None, customer):
                for place, value in self.readings(alert, customer, time, touched).items():
                    self._step(alert, _gauge(alert, customer, place), value, event_id)

    def _step(self, alert: FactAlert, gauge: Gauge, value: Fraction | None, event_id: str | None) -> None:
        known = self._gauges.get((alert.name, gauge))
        if value is None:
            if known is not None:
                known.value = None
            return
        one = known or self._gauges.setdefault((alert.name, gauge), GaugeState())
        previous, one.value = value if one.value is None else one.value, value
        # Falling alerts are the mirror image of rising ones.
        sign = 1 if alert.rising else -1
        thresholds = alert.thresholds if alert.rising else [_mirrored(threshold) for threshold in alert.thresholds]
        if known is None and alert.starts_silent:
            mark_silently(thresholds, one.state, sign * value)
        for found, threshold in follow(thresholds, one.state, sign * previous, [(sign * value, event_id)]):
            transition = Transition(found.kind, sign * found.level, previous, value, event_id)
            self.recorded.append(Recorded(alert.name, gauge, transition, found.kind in threshold.notify_on))


def _gauge(alert: FactAlert, customer: str, place: Place) -> Gauge:
    group, period = place
    return Gauge(customer, None, alert.unit or (alert.reading, ""), group, period)


def _mirrored(threshold: Threshold) -> Threshold:
    value, resolve = threshold.value, threshold.resolve
    return replace(threshold, value=None if value is None else -value, resolve=None if resolve is None else -resolve)


def _share(reading: str, active: Sequence[Segment]) -> Fraction | None:
    remaining = sum((segment.remaining for segment in active), ZERO)
    if reading == REMAINING:
        return remaining
    granted = sum((segment.granted for segment in active), ZERO)
    if granted <= 0:
        return None
    share = 100 * remaining / granted
    return share if reading == PERCENT_REMAINING else 100 - share


def _days(end: datetime, time: datetime) -> Fraction:
    return Fraction((end - time) // _MICROSECOND, _DAY // _MICROSECOND)
