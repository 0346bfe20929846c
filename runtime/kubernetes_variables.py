"""Recognizes the environment variables that Kubernetes sets for each Service of the namespace (service links).

For a Service named `tidemark` or `tidemark-…`, Kubernetes sets TIDEMARK_PORT=tcp://10.0.0.1:50051 and similar
variables in every pod. They look like settings of Tidemark, and are not.
"""

import ipaddress
import re
from collections.abc import Callable

_PROTOCOLS = ("tcp", "udp", "sctp")


def is_service_link(name: str, value: str) -> bool:
    """Whether the name and the value both have the form of a service link."""
    return any(pattern.fullmatch(name) and holds(value) for pattern, holds in _FORMS)


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value.strip("[]"))
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return value.isascii() and value.isdecimal() and 1 <= int(value) <= 65_535


def _is_url(value: str) -> bool:
    protocol, separator, rest = value.partition("://")
    host, _, port = rest.rpartition(":")
    return bool(separator) and protocol in _PROTOCOLS and _is_ip(host) and _is_port(port)


# A name is the name of the Service in capitals, followed by one of these suffixes.
_FORMS: tuple[tuple["re.Pattern[str]", Callable[[str], bool]], ...] = (
    (re.compile(r"[A-Z0-9_]+_SERVICE_HOST"), _is_ip),
    (re.compile(r"[A-Z0-9_]+_SERVICE_PORT(_[A-Z0-9_]+)?"), _is_port),
    (re.compile(r"[A-Z0-9_]+_PORT"), _is_url),
    (re.compile(r"[A-Z0-9_]+_PORT_\d+_(TCP|UDP|SCTP)"), _is_url),
    (re.compile(r"[A-Z0-9_]+_PORT_\d+_(TCP|UDP|SCTP)_PROTO"), lambda value: value in _PROTOCOLS),
    (re.compile(r"[A-Z0-9_]+_PORT_\d+_(TCP|UDP|SCTP)_PORT"), _is_port),
    (re.compile(r"[A-Z0-9_]+_PORT_\d+_(TCP|UDP|SCTP)_ADDR"), _is_ip),
)
