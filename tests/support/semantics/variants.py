"""More rows: conditions with other fields than in the table of `rows`, which has each condition once."""

from generated.tidemark.v1 import access_pb2, filter_pb2
from tests.support.semantics.moves import costs, draws_units, holds, next_period, spent, tops_up
from tests.support.semantics.rows import ONE_SUBSCRIPTION, Row
from tests.support.usage.caller import ALL_CUSTOMERS

_PRICE = filter_pb2.PriceFilter(
    field=filter_pb2.PRICE_FIELD_PRICE_ID, operator=filter_pb2.FILTER_OPERATOR_INCLUDES, values=["p1"]
)

VARIANTS = (
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
