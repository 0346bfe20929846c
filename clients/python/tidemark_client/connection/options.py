"""The options of channels: what keeps them alive through proxies, what is repeated, and how large messages may be."""

from __future__ import annotations

import platform
from functools import cache
from importlib.resources import files

import grpc

from tidemark_client.connection.version import VERSION

# The largest answer that the contract can be asked for, with its frame.
MAX_RECEIVED_BYTES = 64 * 1024 * 1024 + 64 * 1024
KEEPALIVE_TIME = 60.0  # seconds without traffic after which a connection is tested; proxies forget idle ones
KEEPALIVE_TIMEOUT = 20.0  # seconds for the answer to the test
# Seconds between two tries to connect. With gRPC's own, 1 to 120, a client stays away long after the server is back.
FIRST_RECONNECT, LONGEST_RECONNECT = 0.25, 2.0
CONNECT_TIMEOUT = 5.0  # seconds of one try to connect, with the handshake of TLS


@cache
def service_config() -> str:
    """What gRPC repeats by itself: after UNAVAILABLE, with pauses, and only methods that are safe to repeat."""
    return (files("tidemark_client") / "service_config.json").read_text()


def user_agent(application: str = "") -> str:
    """How the client names itself to servers, before what gRPC adds."""
    own = f"tidemark-client/{VERSION} (python {platform.python_version()}; grpcio {grpc.__version__})"
    return f"{application} {own}" if application else own


def channel_options(application: str = "") -> tuple[tuple[str, object], ...]:
    """The options of every channel. application: the name and version of the program, such as `gateway/1.2`."""
    return (
        ("grpc.service_config", service_config()),
        ("grpc.max_receive_message_length", MAX_RECEIVED_BYTES),
        ("grpc.keepalive_time_ms", round(1_000 * KEEPALIVE_TIME)),
        ("grpc.keepalive_timeout_ms", round(1_000 * KEEPALIVE_TIMEOUT)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.initial_reconnect_backoff_ms", round(1_000 * FIRST_RECONNECT)),
        ("grpc.min_reconnect_backoff_ms", round(1_000 * CONNECT_TIMEOUT)),  # its name says something else
        ("grpc.max_reconnect_backoff_ms", round(1_000 * LONGEST_RECONNECT)),
        ("grpc.primary_user_agent", user_agent(application)),
    )
