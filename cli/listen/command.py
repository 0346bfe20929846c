"""The command `tidemark listen`."""

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass
from typing import Any

import click
import grpc
from rich.console import Console
from rich.markup import escape
from yarl import URL

from cli.client.connection import Address
from cli.client.errors import error_reason
from cli.connection.options import call_problem, server_options
from cli.console import Problem, print_result
from cli.event_types import event_type_numbers
from cli.listen.answers import Answer, MalformedAnswer, in_turn, parse_answer
from cli.listen.endpoint import endpoint
from cli.listen.forwarding import Forwarder
from cli.listen.receiver import Arrival, Receiver
from cli.rich_console import standard_error, standard_output
from generated.tidemark.v1.event_type_pb2 import EventType
from runtime.clock import SystemClock
from runtime.signals import on_stop
from tidemark_client import WebhookVerifier
from webhooks.signing_keys import Scheme, new_signing_key


@dataclass(frozen=True)
class Options:
    """The options of `tidemark listen`, as click names and checks them. verifier: None adds an endpoint."""

    host: str
    port: int
    verifier: WebhookVerifier | None
    url: str | None
    event_types: list[EventType.ValueType]
    answers: list[Answer]
    body: bool
    as_json: bool
    forward_to: str | None
    address: Address  # of the server at which an endpoint is added


def _answers(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[Answer]:
    try:
        return [answer for value in values for answer in parse_answer(value)]
    except MalformedAnswer as error:
        raise click.BadParameter(str(error)) from None


def _verifier(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> WebhookVerifier | None:
    try:
        return WebhookVerifier(values) if values else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _forward_to(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    found = value if "://" in value else f"http://{'localhost' if value.startswith(':') else ''}{value}"
    try:
        url = URL(found)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise click.BadParameter(
            f"{value!r} is no URL: write http://localhost:3000/webhooks, or localhost:3000/webhooks"
        )
    return found


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Where to listen; any free port if unset.")
@click.option(
    "--secret",
    "verifier",
    multiple=True,
    callback=_verifier,
    metavar="whsec_…|whpk_…",
    help="Verify with this, and make no endpoint. May be repeated.",
)
@click.option("--url", metavar="URL", help="What the endpoint is given instead of the listening address: a tunnel's.")
@click.option(
    "--forward-to",
    callback=_forward_to,
    metavar="URL",
    help="Post each webhook that verifies here, with its signature, and give the answer of this URL.",
)
@click.option(
    "--event-type",
    "--events",
    "event_types",
    multiple=True,
    callback=event_type_numbers,
    metavar="TYPE,…",
    help="Only these types; may be repeated.",
)
@click.option(
    "--answer",
    "answers",
    multiple=True,
    callback=_answers,
    metavar="ANSWER",
    help="What to answer, in turn, the last one for ever: 204; 503,retry-after=30; 200,delay=3; hang; close;"
    " 500*3 is three times 500.",
)
@click.option("--body", is_flag=True, help="Print bodies, too.")
@click.option("--json", "--print-json", "as_json", is_flag=True, help="Print JSON, one line for each request.")
@server_options
def listen(**options: Any) -> None:
    """Receive webhooks on this machine: verify them, print them, answer as --answer says.

    With --forward-to it passes them on to a program that is being developed, and gives the answer of that program.
    Without --secret it adds an endpoint at the server, and deletes it at the end (Ctrl-C); if it is killed, the next
    one on this machine does. `tidemark export` and `apply` leave such endpoints out. The server and the
    notifier have to allow receivers on this machine: TIDEMARK_WEBHOOK_ALLOW_HTTP=true and
    TIDEMARK_WEBHOOK_ALLOW_CIDRS=127.0.0.0/8.
    """
    chosen = Options(**options)
    if chosen.forward_to and chosen.answers:
        raise click.UsageError("--forward-to gives the answers of its URL: leave out --answer.")
    try:
        asyncio.run(_listen(chosen))
    except grpc.aio.AioRpcError as error:
        raise _problem(error, chosen.address) from None


async def _listen(chosen: Options) -> None:
    stop, console = asyncio.Event(), standard_output()
    # Until the endpoint has a secret, nothing verifies.
    verifier = chosen.verifier or WebhookVerifier(new_signing_key(Scheme.HMAC_SHA256))
    on_stop(stop.set)
    forwarder = None if chosen.forward_to is None else Forwarder(chosen.forward_to)
    receiver = Receiver(
        verifier,
        in_turn(chosen.answers),
        SystemClock(),
        lambda arrival: _show(console, arrival, chosen.body, chosen.as_json),
        forwarder,
    )
    try:
        await receiver.start(chosen.host, chosen.port)
    except OSError as error:
        raise Problem(
            f"cannot listen on {chosen.host} port {chosen.port}: {error.strerror or error}", ["choose another --port"]
        ) from None
    async with contextlib.AsyncExitStack() as stack:
        if forwarder is not None:
            await stack.enter_async_context(forwarder)
        stack.push_async_callback(receiver.stop)
        if chosen.verifier is None:
            url = chosen.url or receiver.url
            await stack.enter_async_context(endpoint(chosen.address, url, chosen.event_types, verifier))
        onward = f", forwarding to [name]{escape(chosen.forward_to)}[/]" if chosen.forward_to else ""
        standard_error().print(f"listening on [name]{escape(receiver.url)}[/]{onward}; Ctrl-C ends it")
        await stop.wait()


def _problem(error: grpc.aio.AioRpcError, address: Address) -> Problem:
    if error_reason(error) == "ERROR_REASON_INVALID_FIELD" and (error.details() or "").startswith("endpoint.url:"):
        return Problem(
            f"the server refuses this address as an endpoint: {error.details()}",
            [
                "start server and notifier with TIDEMARK_WEBHOOK_ALLOW_HTTP=true"
                " TIDEMARK_WEBHOOK_ALLOW_CIDRS=127.0.0.0/8",
                "or give the address of a tunnel with --url https://…",
            ],
        )
    return call_problem(error, address)


def _show(console: Console, arrival: Arrival, with_body: bool, as_json: bool) -> None:
    if as_json:
        print_result(json.dumps(arrival.as_json(), ensure_ascii=False))
        sys.stdout.flush()
        return
    verdict = f"[bad]NOT VERIFIED[/] {escape(arrival.fault)}" if arrival.fault else f"[good]{arrival.scheme}[/]"
    again = f" [warn]time {arrival.count}[/]" if arrival.count > 1 else ""
    test = " [quiet](a test)[/]" if arrival.is_test else ""
    status = arrival.answer.status
    answer = arrival.forwarded or str(arrival.answer)
    style = "good" if status is not None and status < 300 else "warn"
    console.print(
        f"[quiet]{arrival.time:%H:%M:%S}[/] {verdict} [name]{escape(arrival.event_type or '?')}[/]{test}"
        f" {escape(arrival.webhook_id or 'without an id')}{again} → [{style}]{escape(answer)}[/]"
    )
    if with_body:
        shown = arrival.as_json()["body"]
        console.print(escape(shown if isinstance(shown, str) else json.dumps(shown, indent=2, ensure_ascii=False)))
