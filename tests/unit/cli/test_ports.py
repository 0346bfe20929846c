"""`tidemark up` finds a port that is in use before it starts a database."""

import socket

import pytest

from cli.console import Problem
from cli.serving.ports import check_ports
from runtime.configuration import Configuration, load


def settings(**changes: object) -> Configuration:
    environment = {"TIDEMARK_LISTEN": "127.0.0.1:0", **{name: str(value) for name, value in changes.items()}}
    return load(environment)


@pytest.mark.parametrize("name", ["LISTEN", "HTTP_LISTEN", "METRICS_LISTEN", "CONSOLE_LISTEN"])
def test_a_port_that_another_process_has_is_named(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        configured = settings(**{f"TIDEMARK_{name}": f"127.0.0.1:{port}"})
        with pytest.raises(Problem, match=f"cannot listen on 127.0.0.1:{port}: another process does"):
            check_ports(configured, with_console=True)
    check_ports(configured, with_console=True)


def test_the_port_of_a_console_that_is_not_wanted_does_not_count() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        configured = settings(TIDEMARK_CONSOLE_LISTEN=f"127.0.0.1:{other.getsockname()[1]}")
        check_ports(configured, with_console=False)


def test_an_address_that_cannot_be_resolved_is_left_to_the_process() -> None:
    check_ports(settings(TIDEMARK_LISTEN="no-such-host.invalid:50051"), with_console=True)
