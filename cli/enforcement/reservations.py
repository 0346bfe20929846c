"""The commands `tidemark reservations …`."""

from typing import Any

import click
from google.protobuf.json_format import MessageToJson

from cli.client.connection import UNARY_TIMEOUT, Address
from cli.connection.options import server_options
from cli.console import print_progress, print_result
from cli.enforcement.calls import ask
from cli.enforcement.text import line_of_reservation
from generated.tidemark.v1 import limit_service_pb2 as messages
from generated.tidemark.v1 import reservation_pb2

STATES = {
    name.removeprefix("RESERVATION_STATE_").lower(): number
    for name, number in reservation_pb2.ReservationState.items()
    if number
}
PAGE_SIZE = 500

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one reservation a line.")


@click.group()
def reservations() -> None:
    """Show and release what customers hold of their limits and balances."""


@reservations.command(name="list")
@click.argument("customer")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(list(STATES)),
    help="Only reservations in this state. May be repeated. Default: all.",
)
@_json_option
@server_options
def list_(customer: str, states: tuple[str, ...], as_json: bool, address: Address) -> None:
    """List the reservations of a customer, by id. Those that have ended are kept for 7 days."""

    async def every(stub: Any) -> int:
        number, token = 0, ""
        while True:
            page = await stub.ListReservations(
                messages.ListReservationsRequest(
                    customer_id=customer,
                    states=[STATES[state] for state in states],
                    page_size=PAGE_SIZE,
                    page_token=token,
                ),
                metadata=address.metadata,
                timeout=UNARY_TIMEOUT,
            )
            for one in page.reservations:
                _print(one, as_json=as_json)
            number += len(page.reservations)
            token = page.next_page_token
            if not token:
                return number

    if not ask(address, every):
        print_progress(f"the customer {customer} has no such reservation")


@reservations.command()
@click.argument("customer")
@click.argument("reservation")
@_json_option
@server_options
def get(customer: str, reservation: str, as_json: bool, address: Address) -> None:
    """Show one reservation."""
    request = messages.GetReservationRequest(customer_id=customer, reservation_id=reservation)
    answer = ask(address, lambda stub: stub.GetReservation(request, metadata=address.metadata, timeout=UNARY_TIMEOUT))
    _print(answer.reservation, as_json=as_json)


@reservations.command()
@click.argument("customer")
@click.argument("reservation")
@_json_option
@server_options
def release(customer: str, reservation: str, as_json: bool, address: Address) -> None:
    """Give back what a reservation holds, for example after its caller was lost.

    Its caller cannot settle it any more. A reservation that was released or has expired stays as it is.
    """
    request = messages.ReleaseReservationRequest(customer_id=customer, reservation_id=reservation)
    answer = ask(
        address, lambda stub: stub.ReleaseReservation(request, metadata=address.metadata, timeout=UNARY_TIMEOUT)
    )
    _print(answer.reservation, as_json=as_json)


def _print(reservation: reservation_pb2.Reservation, *, as_json: bool) -> None:
    if as_json:
        print_result(MessageToJson(reservation, ensure_ascii=False, indent=None))
    else:
        print_result(line_of_reservation(reservation))
