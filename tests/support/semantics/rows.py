"""The semantics of the 23 conditions as a table: what each measures, its threshold, and how its gauge reaches it.

A falling gauge starts above its threshold and a rising one below it. `before` is the last value at which the
threshold is not reached, `at` the first at which it is (the threshold itself, unless the row names another), `past`
one beyond.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from generated.tidemark.v1 import (
    filter_pb2,
    gauge_pb2,
    scope_pb2,
)
from tests.support.balances.holder import COMMIT, CREDIT, GRANT, SEAT
from tests.support.semantics.moves import (
    Given,
    Move,
    costs,
    draws,
    holds,
    holds_licence,
    holds_segment,
    invoices,
    next_month,
    next_period,
    next_segment,
    on_a_plan,
    owes,
    passes,
    spent,
    tops_up,
    uses,
    uses_licence,
)
from tests.support.semantics.stage import CUSTOMER, SUBSCRIPTION, Stage
from tests.support.usage.caller import ALL_CUSTOMERS, on_customer, on_subscription

ONE_CUSTOMER = on_customer(CUSTOMER)
ONE_SUBSCRIPTION = on_subscription(SUBSCRIPTION, CUSTOMER)

# Seven days, and a microsecond more and less.
SEVEN_AND, SEVEN, NOT_SEVEN = "7.000000000011574075", "7", "6.999999999988425926"

_PRICE = filter_pb2.PriceFilter(
    field=filter_pb2.PRICE_FIELD_PRICE_ID, operator=filter_pb2.FILTER_OPERATOR_INCLUDES, values=["p1"]
)
_SEATS = filter_pb2.SeatFilter(seat_group_key="user")


@dataclass(frozen=True)
class Row:
    """One condition.

    fields: of the condition. given: what exists before the alert. start: the gauge's value then. move: what moves the
    gauge on, and back unless `back` does. notifies_back: whether coming back is notified (RESOLVED); it re-arms in
    both cases. timed: time moves the gauge; a transition has the value at the time of the threshold itself, however
    late it is evaluated. renew: what begins a new cycle. renewed: the gauge's value then. notifies_renewal: it is the
    same gauge, and its threshold resolves by that. gauge: which of several gauges the row is about.
    variant: what is special about the row, where a condition has several.
    """

    condition: str
    scope: scope_pb2.AlertScope
    threshold: str
    before: str
    past: str
    start: str
    move: Move
    at: str = ""
    given: tuple[Given, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)
    back: Move | None = None
    notifies_back: bool = True
    timed: bool = False
    renew: Callable[[Stage], Awaitable[None]] | None = None
    renewed: str = "0"
    notifies_renewal: bool = False
    gauge: Callable[[gauge_pb2.Gauge], bool] = lambda gauge: True
    variant: str = ""

    @property
    def name(self) -> str:
        """The condition, and the variant of it."""
        return f"{self.condition}, {self.variant}" if self.variant else self.condition

    @property
    def reached_at(self) -> Decimal:
        """The first value at which the threshold is reached."""
        return Decimal(self.at or self.threshold)


ROWS = (
    # Customers.
    Row(
        # Before credits and commits: cost that the commit covers counts too.
        "spend_threshold_reached",
        scope=ALL_CUSTOMERS,
        threshold="100",
        before="99.99",
        past="100.01",
        given=(holds("c1", "1000"),),
        start="0",
        move=costs(),
        renew=next_period,
    ),
    Row(
        # Every status but void.
        "monthly_invoice_total_spend_threshold_reached",
        scope=ALL_CUSTOMERS,
        threshold="500",
        before="499.99",
        past="500.01",
        given=(owes("march-base", "50"), owes("march-void", "1000", void=True)),
        start="50",
        move=invoices("rest", beside="50"),
        renew=next_month,
        renewed="50",
    ),
    Row(
        "usage_threshold_reached",
        scope=ALL_CUSTOMERS,
        threshold="1000",
        before="999.999999999999999999",
        past="1000.5",
        fields={"metric_id": "tokens"},
        start="0",
        move=uses("tokens"),
        renew=next_period,
    ),
    Row(
        "low_remaining_days_for_commit_segment_reached",
        scope=ALL_CUSTOMERS,
        threshold=SEVEN,
        before=SEVEN_AND,
        past=NOT_SEVEN,
        given=(holds_segment(COMMIT),),
        start="10",
        move=passes(holds_segment(COMMIT)),
        timed=True,
    ),
    Row(
        "low_remaining_commit_balance_reached",
        scope=ALL_CUSTOMERS,
        threshold="20",
        before="20.01",
        past="19.99",
        given=(holds("c1", "100"), holds("k1", "50", CREDIT, draw=False)),
        start="100",
        move=draws(),
        back=tops_up("c1"),
    ),
    Row(
        "low_remaining_commit_percentage_reached",
        scope=ALL_CUSTOMERS,
        threshold="20",
        before="20.5",
        past="19.5",
        given=(holds("c1", "200"),),
        start="100",
        move=draws(granted="200"),
    ),
    Row(
        "low_remaining_days_for_contract_credit_segment_reached",
        scope=ALL_CUSTOMERS,
        threshold=SEVEN,
        before=SEVEN_AND,
        past=NOT_SEVEN,
        given=(holds_segment(CREDIT),),
        start="10",
        move=passes(holds_segment(CREDIT)),
        timed=True,
    ),
    Row(
        "low_remaining_contract_credit_balance_reached",
        scope=ALL_CUSTOMERS,
        threshold="20",
        before="20.01",
        past="19.99",
        given=(holds("k1", "100", CREDIT), holds("c1", "50", draw=False)),
        start="100",
        move=draws(),
        back=tops_up("k1"),
    ),
    Row(
        "low_remaining_contract_credit_percentage_reached",
        scope=ALL_CUSTOMERS,
        threshold="20",
        before="20.5",
        past="19.5",
        given=(holds("k1", "200", CREDIT),),
        start="100",
        move=draws(granted="200"),
    ),
    Row(
        # Usage draws on the second balance when the first is empty.
        "low_remaining_contract_credit_and_commit_balance_reached",
        scope=ALL_CUSTOMERS,
        threshold="20",
        before="20.01",
        past="19.99",
        given=(holds("k1", "60", CREDIT), holds("c1", "40"), holds("g1", "50", GRANT, draw=False)),
        start="100",
        move=draws(),
        back=tops_up("c1"),
    ),
    Row(
        "low_remaining_contract_credit_and_commit_percentage_reached",
        scope=ALL_CUSTOMERS,
        threshold="20",
        before="20.5",
        past="19.5",
        given=(holds("k1", "120", CREDIT), holds("c1", "80")),
        start="100",
        move=draws(granted="200"),
    ),
    Row(
        # One gauge for each invoice: the other invoice does not add to it.
        "invoice_total_reached",
        scope=ALL_CUSTOMERS,
        threshold="250",
        before="249.99",
        past="250.01",
        given=(owes("march-base", "200"), owes("march-own", "0")),
        start="0",
        move=invoices("own"),
        gauge=lambda gauge: gauge.invoices.invoice_id == "march-own",
    ),
    Row(
        # One gauge for each seat: drawdown of one seat does not move the other.
        "low_remaining_seat_balance_reached",
        scope=ALL_CUSTOMERS,
        threshold="2",
        before="2.01",
        past="1.99",
        fields={"seat_filter": _SEATS},
        given=(holds("ann", "10", SEAT, seat=("user", "ann")), holds("bob", "10", SEAT, seat=("user", "bob"))),
        start="10",
        move=draws(user="ann"),
        back=tops_up("ann"),
        gauge=lambda gauge: gauge.group[0].value == "ann",
    ),
    Row(
        "low_credit_balance_reached",
        scope=ALL_CUSTOMERS,
        threshold="20",
        before="20.01",
        past="19.99",
        given=(holds("g1", "100", GRANT), holds("c1", "50", draw=False)),
        start="100",
        move=draws(),
        back=tops_up("g1"),
    ),
    Row(
        "low_remaining_credit_percentage_reached",
        scope=ALL_CUSTOMERS,
        threshold="20",
        before="20.5",
        past="19.5",
        given=(holds("g1", "200", GRANT),),
        start="100",
        move=draws(granted="200"),
    ),
    Row(
        "low_remaining_days_in_plan_reached",
        scope=ALL_CUSTOMERS,
        threshold=SEVEN,
        before=SEVEN_AND,
        past=NOT_SEVEN,
        given=(on_a_plan,),
        start="10",
        move=passes(on_a_plan),
        timed=True,
    ),
    # Subscriptions, and balances of one customer.
    Row(
        "usage_exceeded",
        scope=ONE_SUBSCRIPTION,
        threshold="1000",
        before="999.999999999999999999",
        past="1000.5",
        fields={"metric_id": "tokens"},
        start="0",
        move=uses("tokens"),
        renew=next_period,
    ),
    Row(
        # Before pre-purchased credits.
        "cost_exceeded",
        scope=ONE_SUBSCRIPTION,
        threshold="100",
        before="99.99",
        past="100.01",
        given=(holds("g1", "1000", GRANT),),
        start="0",
        move=costs(),
        renew=next_period,
    ),
    Row(
        # Of one price; cost at another price does not count.
        "spend_exceeded",
        scope=ONE_SUBSCRIPTION,
        threshold="100",
        before="99.99",
        past="100.01",
        fields={"currency": "USD", "price_filters": [_PRICE]},
        given=(spent("1000", price_id="p2"),),
        start="0",
        move=costs(price_id="p1"),
        renew=next_period,
    ),
    Row(
        "credit_balance_depleted",
        scope=ONE_CUSTOMER,
        threshold="0",
        before="0.01",
        past="-0.01",
        given=(holds("g1", "100", GRANT, allow_overage=True),),
        start="100",
        move=draws(),
        back=tops_up("g1"),
        notifies_back=False,
    ),
    Row(
        "credit_balance_dropped",
        scope=ONE_CUSTOMER,
        threshold="10",
        before="10.01",
        past="9.99",
        given=(holds("g1", "100", GRANT),),
        start="100",
        move=draws(),
        back=tops_up("g1"),
    ),
    Row(
        # A value of 0 is not yet a recovery.
        "credit_balance_recovered",
        scope=ONE_CUSTOMER,
        threshold="0",
        before="0",
        at="0.01",
        past="5",
        given=(holds("g1", "100", GRANT, allow_overage=True), spent("130")),
        start="-30",
        move=tops_up("g1"),
        back=draws(),
        notifies_back=False,
    ),
    Row(
        "license_balance_threshold_reached",
        scope=ONE_CUSTOMER,
        threshold="50",
        before="49.5",
        past="50.5",
        fields={"license_type": "pro"},
        given=(holds_licence("200", "launches"),),
        start="0",
        move=uses_licence("200", "launches"),
        renew=next_segment,
        notifies_renewal=True,
    ),
)
