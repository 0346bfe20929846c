"""The plain model of an organization whose customers hold balances: ledgers, and the alerts on what remains."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

from tests.reference.ladder import Crossing, Line, State, crossings
from tests.reference.wallet import Held, PlainWallet, Span, Terms, Unit

Seat = tuple[str, str]
Told = tuple[str, str, Seat | None]  # alert, customer and seat


@dataclass(frozen=True)
class Event:
    """A usage event; costs name their currency."""

    event_id: str
    customer: str
    time: datetime
    metric: str
    quantity: Fraction
    cost: Fraction | None
    currency: str
    properties: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Alert:
    """An alert on what remains of the balances of a kind: how much, or how many percent; of each seat of a key."""

    kind: str
    unit: Unit
    percent: bool
    seat_key: str | None
    lines: tuple[Fraction, ...]
    name: str = ""


@dataclass
class Gauge:
    """What an alert has seen of a customer; value: of the last look, None where there was nothing to see."""

    value: Fraction | None = None
    state: State = field(default_factory=State)
    told: list[Crossing] = field(default_factory=list)


class Organization:
    """Every ledger and every gauge, each looked at again after whatever may have changed it."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.wallets: dict[str, PlainWallet] = {}
        self.alerts: list[Alert] = []
        self.gauges: dict[Told, Gauge] = {}
        self._seen: set[tuple[str, str]] = set()
        self._put: dict[tuple[str, str], tuple[Terms, tuple[Span, ...]]] = {}

    def wait_until(self, time: datetime) -> None:
        """Time passes: what begins and ends in it is looked at moment by moment."""
        for customer, wallet in self.wallets.items():
            for moment in wallet.changes(self.now, time):
                changing = {
                    balance.terms.held
                    for balance in wallet.balances.values()
                    if not balance.void
                    and any(moment in (one.start, one.end) and not one.removed for one in balance.segments.values())
                }
                self._look(customer, self.alerts, changing, moment)
        self.now = time

    def create(self, alert: Alert) -> None:
        """A new alert looks at everybody."""
        self.alerts.append(alert)
        for customer in self.wallets:
            self._look(customer, [alert], None, self.now)

    def commit(self, events: Iterable[Event]) -> int:
        """Usage draws, but only what was not sent before; returns how many events were new."""
        new: list[Event] = []
        for event in events:
            if (event.customer, event.event_id) not in self._seen:
                self._seen.add((event.customer, event.event_id))
                new.append(event)
        for event in new:
            if event.customer not in self.wallets:
                self.wallets[event.customer] = PlainWallet()
                self._look(event.customer, self.alerts, None, self.now)
        for event in new:
            wallet = self.wallets[event.customer]
            properties = dict(event.properties)
            wallet.use(event.time, event.metric, event.quantity, event.cost, event.currency, properties)
            self._look(event.customer, self.alerts, None, self.now, event.event_id)
        return len(new)

    def put(self, customer: str, terms: Terms, spans: Sequence[Span]) -> None:
        """A balance is put."""
        new = customer not in self.wallets
        wallet = self.wallets.setdefault(customer, PlainWallet())
        known = wallet.balances.get(terms.name)
        if (known is not None and known.void) or self._put.get((customer, terms.name)) == (terms, tuple(spans)):
            return
        self._put[customer, terms.name] = terms, tuple(spans)
        wallet.put(terms, spans)
        self._look(customer, self.alerts, None if new else {terms.held}, self.now)

    def adjust(self, customer: str, name: str, amount: Fraction, place: int | None) -> bool:
        """A balance is adjusted; False: it cannot be."""
        if customer not in self.wallets or not self.wallets[customer].adjust(name, amount, place, self.now):
            return False
        self._look(customer, self.alerts, {self.wallets[customer].balances[name].terms.held}, self.now)
        return True

    def void(self, customer: str, name: str) -> bool:
        """A balance ends; False: there is none."""
        if customer not in self.wallets or name not in self.wallets[customer].balances:
            return False
        balance = self.wallets[customer].balances[name]
        if not balance.void:
            balance.void = True
            self._look(customer, self.alerts, {balance.terms.held}, self.now)
        return True

    def shown(self, alert: Alert, customer: str, seat: Seat | None) -> Fraction | None:
        """What an alert reads; None: nothing was granted of which a share could remain."""
        left, granted = self.wallets[customer].reading((alert.kind, alert.unit, seat), self.now)
        if not alert.percent:
            return left
        return 100 * left / granted if granted > 0 else None

    def _look(
        self,
        customer: str,
        alerts: Iterable[Alert],
        touched: Iterable[Held] | None,
        time: datetime,
        event_id: str | None = None,
    ) -> None:
        """Looks at the gauges of what was touched; None: at all that hold something, or read 0 otherwise."""
        was, self.now = self.now, time
        for alert in alerts:
            for kind, unit, seat in self._holding(alert, customer) if touched is None else touched:
                if (kind, unit, seat and seat[0]) == (alert.kind, alert.unit, alert.seat_key):
                    # A seat is not empty before its credit begins.
                    known = (alert.name, customer, seat) in self.gauges
                    if seat is not None and not known and not self._begun(customer, (kind, unit, seat)):
                        continue
                    self._step(alert, customer, seat, event_id)
        self.now = was

    def _begun(self, customer: str, held: Held) -> bool:
        return any(
            segment.start <= self.now
            for balance in self.wallets[customer].balances.values()
            if balance.terms.held == held
            for segment in balance.segments.values()
        )

    def _holding(self, alert: Alert, customer: str) -> set[Held]:
        active = {
            balance.terms.held
            for balance in self.wallets[customer].balances.values()
            if not balance.void and any(segment.there(self.now) for segment in balance.segments.values())
        }
        return active if alert.seat_key is not None or alert.percent else {(alert.kind, alert.unit, None)}

    def _step(self, alert: Alert, customer: str, seat: Seat | None, event_id: str | None) -> None:
        gauge = self.gauges.setdefault((alert.name, customer, seat), Gauge())
        before, gauge.value = gauge.value, self.shown(alert, customer, seat)
        if gauge.value is None:
            return
        # Lines are reached from above: the mirror image of those that the plain ladder knows.
        lines = [Line(-line, told=frozenset({"REACHED", "RESOLVED"})) for line in alert.lines]
        previous = -(gauge.value if before is None else before)
        gauge.told += [one for one, _ in crossings(lines, gauge.state, previous, [(-gauge.value, event_id)])]
