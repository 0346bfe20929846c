"""The command `tidemark explain`."""

import asyncio
from datetime import datetime

import click
import grpc
from google.protobuf.json_format import MessageToJson

from cli.client.connection import UNARY_TIMEOUT, Address
from cli.connection.options import call_problem, server_options
from cli.console import print_result
from cli.explain.text import lines_of
from cli.time_option import read_time
from generated.tidemark.v1.alert_service_pb2 import ExplainCustomerAlertRequest, ExplainCustomerAlertResponse
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from generated.tidemark.v1.gauge_pb2 import GroupValue


def _group(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[GroupValue]:
    found = []
    for value in values:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{value!r} is no group: write KEY=VALUE")
        found.append(GroupValue(key=key, value=text))
    return found


@click.command()
@click.argument("alert")
@click.argument("customer")
@click.option("--subscription", default="", metavar="ID", help="Only this subscription of the customer.")
@click.option(
    "--group",
    multiple=True,
    callback=_group,
    metavar="KEY=VALUE",
    help="Only gauges with this value of a group key. May be repeated.",
)
@click.option(
    "--at", callback=read_time, metavar="TIME", help="Explain the billing period of this time. Default: now."
)
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the server as JSON.")
@server_options
def explain(
    alert: str,
    customer: str,
    subscription: str,
    group: list[GroupValue],
    at: datetime | None,
    as_json: bool,
    address: Address,
) -> None:
    """Say why an alert has notified about a customer, or why it has not.

    ALERT and CUSTOMER are ids. The first line is the answer; the rest is what was checked, the gauges with their
    thresholds, and where the notifications went.
    """
    request = ExplainCustomerAlertRequest(
        alert_id=alert, customer_id=customer, subscription_id=subscription, group=group
    )
    if at is not None:
        request.period_time.FromDatetime(at)
    try:
        answer = asyncio.run(_ask(address, request))
    except grpc.aio.AioRpcError as error:
        raise call_problem(error, address) from None
    if as_json:
        print_result(MessageToJson(answer.explanation, ensure_ascii=False))
        return
    for line in lines_of(answer.explanation):
        print_result(line)


async def _ask(address: Address, request: ExplainCustomerAlertRequest) -> ExplainCustomerAlertResponse:
    async with address.channel() as channel:
        stub = AlertServiceStub(channel)
        return await stub.ExplainCustomerAlert(request, metadata=address.metadata, timeout=UNARY_TIMEOUT)
