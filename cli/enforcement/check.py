"""The command `tidemark check`."""

import click
from google.protobuf.json_format import MessageToJson

from cli.client.connection import UNARY_TIMEOUT, Address
from cli.connection.options import server_options
from cli.console import print_result
from cli.enforcement.calls import ask
from cli.enforcement.text import lines_of_decision
from generated.tidemark.v1 import decision_pb2
from generated.tidemark.v1.limit_service_pb2 import CheckUsageRequest
from generated.tidemark.v1.requested_usage_pb2 import RequestedUsage

POLICIES = {
    "reject": decision_pb2.USAGE_OVERAGE_POLICY_REJECT,
    "cap": decision_pb2.USAGE_OVERAGE_POLICY_CAP,
    "overflow": decision_pb2.USAGE_OVERAGE_POLICY_OVERFLOW,
}


def _properties(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is no property: write KEY=VALUE")
        found[key] = text
    return found


@click.command()
@click.argument("customer")
@click.argument("metric")
@click.argument("quantity")
@click.option("--cost", default="", metavar="AMOUNT", help="What the usage costs. Default: nothing.")
@click.option("--currency", default="", help="Currency of the cost. Default: that of the customer.")
@click.option("--subscription", default="", metavar="ID", help="Subscription of the usage.")
@click.option(
    "--property",
    "properties",
    multiple=True,
    callback=_properties,
    metavar="KEY=VALUE",
    help="A property of the usage, which selects limits with groups. May be repeated.",
)
@click.option(
    "--policy", type=click.Choice(list(POLICIES)), default="reject", show_default=True, help="For what does not fit."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the server as JSON.")
@server_options
def check(
    customer: str,
    metric: str,
    quantity: str,
    cost: str,
    currency: str,
    subscription: str,
    properties: dict[str, str],
    policy: str,
    as_json: bool,
    address: Address,
) -> None:
    """Say whether usage of a customer fits into its limits and balances now.

    CUSTOMER and METRIC are ids. Nothing is held or counted. The first line is the decision, and then come the limits
    that it depends on. The command ends with 0 also when the usage is denied.
    """
    request = CheckUsageRequest(
        usage=RequestedUsage(
            customer_id=customer,
            subscription_id=subscription,
            metric_id=metric,
            quantity=quantity,
            cost=cost,
            currency=currency,
            properties=properties,
        ),
        overage_policy=POLICIES[policy],
    )
    answer = ask(address, lambda stub: stub.CheckUsage(request, metadata=address.metadata, timeout=UNARY_TIMEOUT))
    if as_json:
        print_result(MessageToJson(answer, ensure_ascii=False))
        return
    for line in lines_of_decision(answer.decision):
        print_result(line)
