"""More rows: conditions with other fields than in the table of `rows`, which has each condition once."""

from generated.tidemark.v1 import access_pb2, filter_pb2
from tests.support.balances.holder import SEAT
from tests.support.semantics.moves import (
    costs,
    draws,
    draws_units,
    holds,
    invoices,
    next_period,
    on_a_plan,
    owes,
    spent,
    tops_up,
    under_contract,
    uses,
)
from tests.support.semantics.rows import ONE_SUBSCRIPTION, Row
from tests.support.semantics.stage import CUSTOMER
from tests.support.usage.caller import ALL_CUSTOMERS, on_customer_plan

_PRICE = filter_pb2.PriceFilter(
    field=filter_pb2.PRICE_FIELD_PRICE_ID, operator=filter_pb2.FILTER_OPERATOR_INCLUDES, values=["p1"]
)


def _filter(entity: filter_pb2.CustomFieldEntity.ValueType) -> filter_pb2.CustomFieldFilter:
    return filter_pb2.CustomFieldFilter(entity=entity, key="region", value="eu")


_CONTRACT = _filter(filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT)

VARIANTS = (
    Row(
        # Under the contract of the subscription; cost under another contract does not count.
        "spend_threshold_reached",
        variant="custom fields",
        scope=ALL_CUSTOMERS,
        threshold="100",
        before="99.99",
        past="100.01",
        fields={"custom_field_filters": [_CONTRACT]},
        given=(under_contract(region="eu"),),
        start="0",
        move=costs(),
        renew=next_period,
    ),
    Row(
        "monthly_invoice_total_spend_threshold_reached",
        variant="custom fields",
        scope=ALL_CUSTOMERS,
        threshold="500",
        before="499.99",
        past="500.01",
        fields={"custom_field_filters": [_CONTRACT]},
        given=(owes("march-base", "50", region="eu"), owes("march-us", "1000", region="us"), owes("none", "1000")),
        start="50",
        move=invoices("rest", beside="50", region="eu"),
    ),
    Row(
        "low_remaining_seat_balance_reached",
        variant="custom fields",
        scope=ALL_CUSTOMERS,
        threshold="2",
        before="2.01",
        past="1.99",
        fields={
            "seat_filter": filter_pb2.SeatFilter(seat_group_key="user"),
            "custom_field_filters": [_filter(filter_pb2.CUSTOM_FIELD_ENTITY_CONTRACT_CREDIT)],
        },
        given=(
            holds("eu", "10", SEAT, seat=("user", "ann"), custom_fields={"region": "eu"}),
            holds("us", "10", SEAT, seat=("user", "ann"), custom_fields={"region": "us"}, draw=False),
        ),
        start="10",
        move=draws(user="ann"),
        back=tops_up("eu"),
    ),
    Row(
        "usage_threshold_reached",
        variant="a customer on a plan",
        scope=on_customer_plan(CUSTOMER, "pro"),
        threshold="1000",
        before="999.999999999999999999",
        past="1000.5",
        fields={"metric_id": "tokens"},
        given=(on_a_plan,),
        start="0",
        move=uses("tokens"),
    ),
    Row(
        # Of one price in each region; cost at another price or in another region does not count.
        "cost_exceeded",
        variant="grouped with price filters",
        scope=ONE_SUBSCRIPTION,
        threshold="100",
        before="99.99",
        past="100.01",
        fields={"grouping_keys": ["region"], "currency": "USD", "price_filters": [_PRICE]},
        given=(
            spent("0", price_id="p1", region="eu"),
            spent("1000", price_id="p2", region="eu"),
            spent("50", price_id="p1", region="us"),
        ),
        start="0",
        move=costs(price_id="p1", region="eu"),
        renew=next_period,
        gauge=lambda gauge: gauge.group[0].value == "eu",
    ),
    Row(
        # Units of every metric are added up; money is not.
        "low_remaining_commit_balance_reached",
        variant="units of every metric",
        scope=ALL_CUSTOMERS,
        threshold="20",
        before="20.5",
        past="19.5",
        fields={"quantity": access_pb2.QuantityAccess()},
        given=(holds("c1", "90", metric="calls"), holds("c2", "10", metric="tokens"), holds("c3", "500")),
        start="100",
        move=draws_units("calls"),
        back=tops_up("c1"),
    ),
)
