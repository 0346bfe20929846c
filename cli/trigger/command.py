"""The command `tidemark trigger`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from cli.connection.options import server_options
from cli.console import Problem, bad, good, named, print_progress, print_result, quiet, warn
from cli.resources.completion import ids
from cli.sections import SectionCommand, SectionOption

if TYPE_CHECKING:
    from cli.client.connection import Address
    from cli.connection.channels import Caller

POLL = 0.2  # seconds between two looks at a delivery
PENDING, DELIVERED = 1, 2  # DeliveryStatus
FAILED_ATTEMPT = 1  # the exit code when the endpoint did not take the event


class EventArgument(click.Argument):
    """The name of an event type, or of the condition of an alert."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The types and the conditions that begin with the word."""
        return [CompletionItem(name) for name in (*event_types(), *conditions()) if name.startswith(incomplete)]


class EndpointOption(SectionOption):
    """The id of an endpoint."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The endpoints that begin with the word."""
        return ids("endpoint_id", ctx, incomplete)


def event_types() -> dict[str, int]:
    """The event types by their names."""
    from cli.resources.cells import event_type_text

    return {event_type_text(name): number for name, number in _numbers("event_type").items()}


def conditions() -> dict[str, int]:
    """The types of alerts, by the names of their conditions."""
    return _numbers("condition_type")


def _numbers(field: str) -> dict[str, int]:
    """The numbers of an enum in the request, by their names."""
    from cli.resources import contract

    found = contract.method("WebhookService/SendTestEvent").input_type.fields_by_name[field]
    return {name.replace("-", "_"): number for name, number in contract.enum_names(found).items()}


@dataclass(frozen=True)
class _Wanted:
    """What the test event is an example of, by numbers of the contract; 0: unset."""

    event_type: int = 0
    condition_type: int = 0


@click.command(cls=SectionCommand)
@click.argument("event", cls=EventArgument, metavar="EVENT", required=False)
@click.option(
    "--endpoint",
    "endpoints",
    cls=EndpointOption,
    multiple=True,
    metavar="ID",
    help="The endpoint. May be repeated. Default: the only one that is enabled.",
)
@click.option("--resolved", is_flag=True, help="Of a condition: the threshold is resolved, and not reached.")
@click.option("--list", "listed", is_flag=True, help="List what can be sent, and send nothing.")
@click.option("--all", "every", is_flag=True, help="All endpoints that are enabled.")
@click.option(
    "--wait",
    type=click.FloatRange(0, 3_600),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the answer of the endpoint; 0: not at all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the deliveries as JSON, a line each.")
@server_options
def trigger(
    event: str | None,
    endpoints: tuple[str, ...],
    resolved: bool,
    listed: bool,
    every: bool,
    wait: float,
    as_json: bool,
    address: Address,
) -> None:
    """Send a test event to an endpoint, and say what it answered.

    EVENT is the condition of an alert, such as usage_exceeded, or a type of event, such as alert.reached; without one
    the command lists all. The event is an example, with `"test": true` in its data, whatever types the endpoint
    takes. It is signed and sent by the notifier, as every notification. Ends with 1 if the endpoint did not take it.
    """
    import grpc

    from cli.connection.channels import caller
    from cli.connection.problems import as_failed, problem_of

    if event is None or listed:
        for name in (*event_types(), *conditions()):
            print_result(name)
        return
    wanted = _wanted(event, resolved=resolved)
    with caller(address) as server:
        try:
            chosen = endpoints or _enabled(server, every=every)
            taken = [_send(server, endpoint, wanted, wait, as_json=as_json) for endpoint in chosen]
        except grpc.RpcError as error:
            raise problem_of(as_failed(error), address) from None
    if not all(taken):
        raise SystemExit(FAILED_ATTEMPT)


def _wanted(event: str, *, resolved: bool) -> _Wanted:
    import difflib

    from cli.resources.tables.texts import short_condition

    types, known = event_types(), conditions()
    short = {short_condition(each): number for each, number in known.items()}
    name = event.lower()
    condition = name.removeprefix("condition_type_").replace("-", "_")
    number = known.get(condition) or short.get(short_condition(condition))
    if number is not None:
        kind = types["alert.resolved" if resolved else "alert.reached"]
        return _Wanted(kind, number)
    name = name.removeprefix("event_type_")
    for spelling in (name, name.replace("_", ".", 1), name.replace("-", ".", 1).replace("-", "_")):
        if spelling in types:
            if resolved:
                raise click.BadParameter("it needs the condition of an alert as EVENT", param_hint="--resolved")
            return _Wanted(types[spelling])
    close = difflib.get_close_matches(condition, [*types, *known, *short], 3)
    hint = f"did you mean {' or '.join(close)}?" if close else "tidemark trigger --list shows all"
    raise click.BadParameter(f"{event!r} is no event type and no condition: {hint}", param_hint="EVENT")


def _enabled(server: Caller, *, every: bool) -> list[str]:
    """The endpoints to send to where none is named. Raises Problem."""
    from cli.resources import contract

    method = contract.method("WebhookService/ListEndpoints")
    request = contract.new(method.input_type)
    request.states.append(1)
    request.page_size = 100
    found = list(server.call(method, request).endpoints)
    if not found:
        raise Problem(
            "there is no endpoint that is enabled",
            ["tidemark listen --forward-to URL adds one for as long as it runs", "tidemark endpoints create URL"],
        )
    if len(found) > 1 and not every:
        raise Problem(
            f"there are {len(found)} endpoints: choose with --endpoint ID, or --all",
            [f"{one.endpoint_id}  {one.url}  {one.display_name}".rstrip() for one in found[:10]],
        )
    return [one.endpoint_id for one in found]


def _send(server: Caller, endpoint_id: str, wanted: _Wanted, wait: float, *, as_json: bool) -> bool:
    """Sends a test event, waits for the first attempt and prints it; whether the endpoint took the event."""
    from cli.resources import contract
    from cli.resources.documents import tree_of

    method = contract.method("WebhookService/SendTestEvent")
    request = contract.new(method.input_type)
    request.endpoint_id = endpoint_id
    request.event_type, request.condition_type = wanted.event_type, wanted.condition_type
    delivery = server.call(method, request).delivery
    if not as_json:
        print_progress(f"sent {named(delivery.notification_id)} to {named(endpoint_id)}")
    answer = _settled(server, delivery.delivery_id, wait) if wait else None
    if as_json:
        import json

        shown = answer.delivery if answer is not None else delivery
        click.echo(json.dumps(tree_of(shown, json_names=True), ensure_ascii=False))
    elif answer is not None:
        _show(answer)
    return answer is None or answer.delivery.status == DELIVERED


def _settled(server: Caller, delivery_id: str, wait: float) -> Any:
    """The delivery after its first attempt, or as it is after `wait` seconds."""
    from cli.resources import contract

    method = contract.method("WebhookService/GetDelivery")
    request = contract.new(method.input_type)
    request.delivery_id = delivery_id
    end = time.monotonic() + wait
    while True:
        answer = server.call(method, request)
        if answer.attempts or answer.delivery.status != PENDING or time.monotonic() >= end:
            return answer
        time.sleep(POLL)


def _show(answer: Any) -> None:
    delivery_id = answer.delivery.delivery_id
    if not answer.attempts:
        print_result(f"{warn('waiting')} no attempt yet: does a notifier run?")
        print_progress(quiet(f"see it later: tidemark deliveries get {delivery_id}"))
        return
    attempt = answer.attempts[-1]
    length = attempt.duration.ToMilliseconds()
    what = f"{attempt.http_status} " if attempt.http_status else ""
    detail = " ".join((attempt.error or attempt.response_excerpt).split())[:200]
    if answer.delivery.status == DELIVERED:
        print_result(f"{good('delivered')} {what}in {length} ms")
        return
    print_result(f"{bad('not taken')} {what}in {length} ms {detail}".rstrip())
    print_progress(quiet(f"it is tried again; see tidemark deliveries get {delivery_id}"))
