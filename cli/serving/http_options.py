"""The option --http-listen of the commands that run servers, and the HTTP port that it opens."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cli.console import ConfigurationProblem
from runtime.configuration import Configuration

if TYPE_CHECKING:  # a parent of servers imports none of the server
    from server.front import Front

Command = TypeVar("Command", bound=Callable[..., Any])


def http_listen_option(command: Command) -> Command:
    """Adds --http-listen, which overrides TIDEMARK_HTTP_LISTEN."""
    return click.option(
        "--http-listen",
        metavar="HOST:PORT",
        help="Address of HTTP and JSON, beside gRPC. Overrides TIDEMARK_HTTP_LISTEN.",
    )(command)


def http_front(settings: Configuration, on_listening: Callable[[str, int], None]) -> "Front | None":
    """The HTTP port of a server; None where none is configured. on_listening: called with host and port.

    Raises ConfigurationProblem when the mapping of CloudEvents cannot be used.
    """
    if settings.http_listen is None:
        return None
    # Here, because a server without the port needs no HTTP server, which takes 10 MB.
    from gateway.application import Settings
    from gateway.cloudevents.mapping import BadMapping, default_mapping, load_mapping
    from gateway.listening import HttpFront

    path = settings.cloudevents_mapping
    try:
        mapping = default_mapping() if path is None else load_mapping(path)
    except BadMapping as error:
        raise ConfigurationProblem(f"TIDEMARK_CLOUDEVENTS_MAPPING: {error}") from None
    host, port = settings.http_listen
    return HttpFront(
        host,
        port,
        Settings(settings.max_message_bytes, settings.http_allow_origins, mapping, settings.max_batch_events),
        max_connections=settings.max_connections,
        on_listening=on_listening,
    )
