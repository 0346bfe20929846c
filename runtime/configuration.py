"""The settings of all processes: environment variables with their defaults, units and checks."""

import base64
import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from runtime.kubernetes_variables import is_service_link
from runtime.quotas import MAX_QUOTA, QuotaKind, Quotas

PREFIX = "TIDEMARK_"
# The variables that the client commands read. A server ignores them: one shell may start both.
CLIENT_SETTINGS = frozenset(
    f"TIDEMARK_{name}"
    for name in ("SERVER", "KEY", "CONTEXT", "TLS", "SERVER_CA", "CLIENT_CERTIFICATE", "CLIENT_KEY")
)

DEFAULT_LISTEN = "127.0.0.1:50051"
DEFAULT_DATA_DIRECTORY = ".tidemark"
DEFAULT_POOL_SIZE = 12  # connections of one process
DEFAULT_GRACE = 34  # days after its end in which a period still counts events and is evaluated
DEFAULT_RETENTION = 400  # days that stored events are kept, so that a period of a year can be recounted
DEFAULT_NOTIFICATION_RETENTION = 400  # days that notifications are kept, and resume tokens are valid
DEFAULT_AUDIT_RETENTION = 400  # days that entries of the audit log are kept, at least
DEFAULT_MAX_BATCH_EVENTS = 5_000  # events a message
DEFAULT_MAX_MESSAGE_BYTES = 4 * 1024 * 1024  # bytes a gRPC message
DEFAULT_INGEST_WRITERS = 2  # concurrent transactions of one organization
DEFAULT_MAX_PENDING_EVENTS = 100_000  # pending events of one process before RESOURCE_EXHAUSTED
DEFAULT_ORGANIZATION_PENDING_EVENTS = 50_000  # of one organization, of those
DEFAULT_ORGANIZATION_CALLS = 256  # unary calls of one organization that a process serves or queues
DEFAULT_ORGANIZATION_STREAMS = 256  # usage streams of one organization on one process
DEFAULT_ORGANIZATION_WATCHERS = 100  # watch streams of one organization on one process
DEFAULT_MAX_WATCHERS = 1_000  # watch streams on one process, beside the first few of each organization
DEFAULT_MAX_CONNECTIONS = 900  # of clients to one server; less than the usual limit of 1,024 open files
DEFAULT_HEARTBEAT = 30.0  # seconds between heartbeats of an idle stream
DEFAULT_PROPAGATION_DELAY = 3.0  # seconds from NOT_SERVING to the drain, in which load balancers notice
DEFAULT_DRAIN_TIMEOUT = 20.0  # seconds that calls in flight may take to end
DEFAULT_UNARY_DEADLINE = 10.0  # seconds for a unary call without a deadline
DEFAULT_NOTIFIER_CONCURRENCY = 256  # webhook requests in flight in one process
DEFAULT_DELIVERY_RETENTION = 30  # days that finished deliveries and their attempts are kept
DEFAULT_WEBHOOK_TIMEOUT = 15.0  # seconds that a receiver may take to answer

SECRET_KEY_BYTES = 32  # of a master key, for AES-256
MAX_KEY_ID_BYTES = 64

Number = TypeVar("Number", int, float)


class ConfigurationError(Exception):
    """The environment contains settings that cannot be used; the message lists all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("the configuration cannot be used:\n" + "\n".join(f"  - {line}" for line in problems))
        self.problems = problems


@dataclass(frozen=True)
class Configuration:
    """The checked settings of one process."""

    database_url: str | None = None  # None: the embedded server under data_directory
    # Of a cluster: addresses of workers for this process, by those that the cluster has. None: workers are not used.
    database_nodes: tuple[tuple[str, str], ...] | None = ()
    data_directory: Path = Path(DEFAULT_DATA_DIRECTORY)
    migrate_at_start: bool = True
    pool_size: int = DEFAULT_POOL_SIZE
    listen_host: str = "127.0.0.1"
    listen_port: int = 50051  # 0: any free port
    http_listen: tuple[str, int] | None = None  # of HTTP and JSON; None: the server speaks gRPC only
    http_allow_origins: tuple[str, ...] = ()  # of web pages in browsers; "*": all
    cloudevents_mapping: Path | None = None  # None: the convention of docs/http.md
    tls_certificate: Path | None = None  # a chain in PEM; None: the port has no TLS
    tls_key: Path | None = None
    tls_client_ca: Path | None = None  # every client needs a certificate of these authorities; None: none needs one
    trusted_proxies: tuple[str, ...] = ()  # networks and identities whose x-forwarded-client-cert is believed
    reflection: bool = True
    max_batch_events: int = DEFAULT_MAX_BATCH_EVENTS
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES
    max_connections: int = DEFAULT_MAX_CONNECTIONS  # of clients
    max_pending_events: int = DEFAULT_MAX_PENDING_EVENTS
    organization_pending_events: int = DEFAULT_ORGANIZATION_PENDING_EVENTS
    organization_calls: int = DEFAULT_ORGANIZATION_CALLS
    organization_streams: int = DEFAULT_ORGANIZATION_STREAMS
    organization_watchers: int = DEFAULT_ORGANIZATION_WATCHERS
    max_watchers: int = DEFAULT_MAX_WATCHERS
    quotas: Quotas = field(default_factory=dict)  # of organizations without their own
    ingest_writers: int = DEFAULT_INGEST_WRITERS
    native: bool = True  # usage is read and written by compiled modules, where there are some
    grace: timedelta = timedelta(days=DEFAULT_GRACE)
    retention: timedelta = timedelta(days=DEFAULT_RETENTION)
    notification_retention: timedelta = timedelta(days=DEFAULT_NOTIFICATION_RETENTION)
    audit_retention: timedelta = timedelta(days=DEFAULT_AUDIT_RETENTION)
    heartbeat: float = DEFAULT_HEARTBEAT  # seconds
    propagation_delay: float = DEFAULT_PROPAGATION_DELAY  # seconds
    drain_timeout: float = DEFAULT_DRAIN_TIMEOUT  # seconds
    unary_deadline: float = DEFAULT_UNARY_DEADLINE  # seconds
    notifier_concurrency: int = DEFAULT_NOTIFIER_CONCURRENCY
    metrics_listen: tuple[str, int] | None = None  # of health and metrics of a process; None: it does not listen
    notifier_listen: tuple[str, int] | None = None  # the same, of a notifier alone
    console_listen: tuple[str, int] | None = None  # of the console; None: `serve` has none
    delivery_retention: timedelta = timedelta(days=DEFAULT_DELIVERY_RETENTION)
    # Master keys of stored secrets, as id and 32 bytes. The first one encrypts, all of them decrypt.
    secret_keys: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    webhook_timeout: float = DEFAULT_WEBHOOK_TIMEOUT  # seconds
    webhook_allow_http: bool = False
    webhook_allow_networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    log_level: str = "info"
    log_format: str = "json"


@dataclass
class _Reader:
    """Reads single settings, and collects the problems."""

    environment: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def raw(self, name: str) -> str | None:
        self.known.add(PREFIX + name)
        value = self.environment.get(PREFIX + name, "").strip()
        return value or None

    def number(
        self, name: str, kind: Callable[[str], Number], default: Number, low: Number, high: Number, unit: str
    ) -> Number:
        text = self.raw(name)
        if text is None:
            return default
        try:
            value = kind(text)
        except ValueError:
            self.problems.append(f"{PREFIX}{name} is {text!r}: write a number of {unit}")
            return default
        if not low <= value <= high:
            self.problems.append(f"{PREFIX}{name} is {text}: it must be between {low} and {high} {unit}")
            return default
        return value

    def quotas(self) -> Quotas:
        unset, most = -1, MAX_QUOTA
        read = {
            QuotaKind.ALERTS: self.number("QUOTA_ALERTS", int, unset, 0, most, "alerts"),
            QuotaKind.ENDPOINTS: self.number("QUOTA_ENDPOINTS", int, unset, 0, most, "endpoints"),
            QuotaKind.STREAMS: self.number("QUOTA_STREAMS", int, unset, 0, most, "streams"),
            QuotaKind.WATCHERS: self.number("QUOTA_WATCHERS", int, unset, 0, most, "streams"),
            QuotaKind.EVENTS_PER_SECOND: self.number("QUOTA_EVENTS_PER_SECOND", int, unset, 0, most, "events"),
            QuotaKind.BYTES_PER_SECOND: self.number("QUOTA_BYTES_PER_SECOND", int, unset, 0, most, "bytes"),
        }
        return {kind: limit for kind, limit in read.items() if limit != unset}

    def flag(self, name: str, default: bool) -> bool:
        text = self.raw(name)
        if text is None:
            return default
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        self.problems.append(f"{PREFIX}{name} is {text!r}: write true or false")
        return default

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        text = self.raw(name)
        if text is None:
            return default
        if text.lower() not in choices:
            self.problems.append(f"{PREFIX}{name} is {text!r}: choose one of {', '.join(choices)}")
            return default
        return text.lower()

    def database_url(self) -> str | None:
        text = self.raw("DATABASE_URL")
        if text is not None and not text.startswith(("postgresql://", "postgres://")):
            self.problems.append(
                f"{PREFIX}DATABASE_URL is not the URL of a PostgreSQL server:"
                " write postgresql://user:password@host:5432/database"
            )
            return None
        return text

    def database_nodes(self) -> tuple[tuple[str, str], ...] | None:
        parts = self.texts("DATABASE_NODES")
        if parts == ("coordinator",):
            return None
        pairs = []
        for part in parts:
            node, equals, address = part.partition("=")
            if not equals or not all(re.fullmatch(r"[^/@\s,]+:\d{1,5}", one) for one in (node, address)):
                self.problems.append(
                    f"{PREFIX}DATABASE_NODES contains {part!r}: write node=address for each worker, such as"
                    " worker-1:5432=10.0.0.7:5432, or coordinator alone"
                )
            pairs.append((node, address))
        return tuple(pairs)

    def address(self) -> tuple[str, int]:
        text = self.raw("LISTEN") or DEFAULT_LISTEN
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            self.problems.append(f"{PREFIX}LISTEN is {text!r}: write host:port, such as {DEFAULT_LISTEN}")
            return "127.0.0.1", 50051
        return host.strip("[]"), int(port)

    def optional_address(self, name: str) -> tuple[str, int] | None:
        text = self.raw(name)
        if text is None:
            return None
        host, colon, port = text.rpartition(":")
        if not colon or not host or not port.isdecimal() or int(port) > 65535:
            self.problems.append(f"{PREFIX}{name} is {text!r}: write host:port, such as 127.0.0.1:9464")
            return None
        return host.strip("[]"), int(port)

    def path(self, name: str) -> Path | None:
        text = self.raw(name)
        return None if text is None else Path(text)

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in (self.raw(name) or "").split(",") if part.strip())

    def origins(self, name: str, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"https?://[^/\s]+", origin):
                self.problems.append(
                    f"{PREFIX}{name} contains {origin!r}: write origins such as https://app.example.com, or *"
                )
        return origins

    def secret_keys(self) -> tuple[tuple[str, bytes], ...]:
        # Messages do not contain the value, because they appear in logs.
        keys: dict[str, bytes] = {}
        for number, part in enumerate((self.raw("SECRET_KEYS") or "").split(","), start=1):
            if not part.strip():
                continue
            key_id, _, encoded = part.strip().partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except ValueError:
                key = b""
            if not 1 <= len(key_id.encode()) <= MAX_KEY_ID_BYTES or key_id in keys or len(key) != SECRET_KEY_BYTES:
                self.problems.append(
                    f"{PREFIX}SECRET_KEYS: its key number {number} is not a unique id, a colon and the base64 of"
                    f" {SECRET_KEY_BYTES} bytes; write 2026a:… with the output of: openssl rand -base64 32"
                )
                continue
            keys[key_id] = key
        return tuple(keys.items())

    def networks(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        networks = []
        for part in (self.raw("WEBHOOK_ALLOW_CIDRS") or "").split(","):
            if not part.strip():
                continue
            try:
                networks.append(ipaddress.ip_network(part.strip()))
            except ValueError as error:
                self.problems.append(
                    f"{PREFIX}WEBHOOK_ALLOW_CIDRS contains {part.strip()!r}: {error};"
                    " write networks such as 10.1.0.0/16,fd00::/8"
                )
        return tuple(networks)

    def refuse_unknown(self) -> None:
        for name in sorted(set(self.environment) - CLIENT_SETTINGS):
            if name.startswith(PREFIX) and name not in self.known and not name.startswith(PREFIX + "TEST_"):
                if is_service_link(name, self.environment[name]):
                    continue
                close = difflib.get_close_matches(name, self.known, n=1)
                hint = f"; did you mean {close[0]}?" if close else "; see docs/configuration.md"
                self.problems.append(f"{name} is not a setting of Tidemark{hint}")


def load(environment: Mapping[str, str]) -> Configuration:
    """Reads the settings from environment variables. An empty variable counts as unset.

    Raises ConfigurationError, which lists all invalid variables.
    """
    read = _Reader(environment)
    host, port = read.address()
    configuration = Configuration(
        database_url=read.database_url(),
        database_nodes=read.database_nodes(),
        data_directory=Path(read.raw("DATA_DIRECTORY") or DEFAULT_DATA_DIRECTORY),
        migrate_at_start=read.choice("MIGRATE", "auto", ("auto", "never")) == "auto",
        pool_size=read.number("POOL_SIZE", int, DEFAULT_POOL_SIZE, 4, 200, "connections"),
        listen_host=host,
        listen_port=port,
        http_listen=read.optional_address("HTTP_LISTEN"),
        http_allow_origins=read.origins("HTTP_ALLOW_ORIGINS", read.texts("HTTP_ALLOW_ORIGINS")),
        cloudevents_mapping=read.path("CLOUDEVENTS_MAPPING"),
        tls_certificate=read.path("TLS_CERTIFICATE"),
        tls_key=read.path("TLS_KEY"),
        tls_client_ca=read.path("TLS_CLIENT_CA"),
        trusted_proxies=read.texts("TRUSTED_PROXIES"),
        reflection=read.flag("REFLECTION", True),
        max_batch_events=read.number("MAX_BATCH_EVENTS", int, DEFAULT_MAX_BATCH_EVENTS, 1, 50_000, "events"),
        max_message_bytes=read.number(
            "MAX_MESSAGE_BYTES", int, DEFAULT_MAX_MESSAGE_BYTES, 1024, 256 * 1024 * 1024, "bytes"
        ),
        max_connections=read.number("MAX_CONNECTIONS", int, DEFAULT_MAX_CONNECTIONS, 10, 1_000_000, "connections"),
        max_pending_events=read.number(
            "MAX_PENDING_EVENTS", int, DEFAULT_MAX_PENDING_EVENTS, 1_000, 10_000_000, "events"
        ),
        organization_pending_events=read.number(
            "ORGANIZATION_PENDING_EVENTS", int, DEFAULT_ORGANIZATION_PENDING_EVENTS, 1_000, 10_000_000, "events"
        ),
        organization_calls=read.number("ORGANIZATION_CALLS", int, DEFAULT_ORGANIZATION_CALLS, 1, 100_000, "calls"),
        organization_streams=read.number(
            "ORGANIZATION_STREAMS", int, DEFAULT_ORGANIZATION_STREAMS, 1, 100_000, "streams"
        ),
        organization_watchers=read.number(
            "ORGANIZATION_WATCHERS", int, DEFAULT_ORGANIZATION_WATCHERS, 1, 100_000, "streams"
        ),
        max_watchers=read.number("MAX_WATCHERS", int, DEFAULT_MAX_WATCHERS, 1, 1_000_000, "streams"),
        quotas=read.quotas(),
        ingest_writers=read.number("INGEST_WRITERS", int, DEFAULT_INGEST_WRITERS, 1, 32, "writers"),
        native=read.flag("NATIVE", True),
        grace=timedelta(days=read.number("GRACE_DAYS", int, DEFAULT_GRACE, 1, 366, "days")),
        retention=timedelta(days=read.number("RETENTION_DAYS", int, DEFAULT_RETENTION, 35, 36_500, "days")),
        notification_retention=timedelta(
            days=read.number("NOTIFICATION_RETENTION_DAYS", int, DEFAULT_NOTIFICATION_RETENTION, 1, 36_500, "days")
        ),
        audit_retention=timedelta(
            days=read.number("AUDIT_RETENTION_DAYS", int, DEFAULT_AUDIT_RETENTION, 1, 36_500, "days")
        ),
        heartbeat=read.number("HEARTBEAT_SECONDS", float, DEFAULT_HEARTBEAT, 0.05, 3_600.0, "seconds"),
        propagation_delay=read.number(
            "PROPAGATION_DELAY_SECONDS", float, DEFAULT_PROPAGATION_DELAY, 0.0, 300.0, "seconds"
        ),
        drain_timeout=read.number("DRAIN_TIMEOUT_SECONDS", float, DEFAULT_DRAIN_TIMEOUT, 0.1, 3_600.0, "seconds"),
        unary_deadline=read.number("UNARY_DEADLINE_SECONDS", float, DEFAULT_UNARY_DEADLINE, 0.1, 600.0, "seconds"),
        notifier_concurrency=read.number(
            "NOTIFIER_CONCURRENCY", int, DEFAULT_NOTIFIER_CONCURRENCY, 1, 4_096, "requests"
        ),
        metrics_listen=read.optional_address("METRICS_LISTEN"),
        notifier_listen=read.optional_address("NOTIFIER_LISTEN"),
        console_listen=read.optional_address("CONSOLE_LISTEN"),
        delivery_retention=timedelta(
            days=read.number("DELIVERY_RETENTION_DAYS", int, DEFAULT_DELIVERY_RETENTION, 1, 3_650, "days")
        ),
        secret_keys=read.secret_keys(),
        webhook_timeout=read.number("WEBHOOK_TIMEOUT_SECONDS", float, DEFAULT_WEBHOOK_TIMEOUT, 0.1, 60.0, "seconds"),
        webhook_allow_http=read.flag("WEBHOOK_ALLOW_HTTP", False),
        webhook_allow_networks=read.networks(),
        log_level=read.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")),
        log_format=read.choice("LOG_FORMAT", "json", ("json", "text")),
    )
    if configuration.retention < configuration.grace + timedelta(days=1):
        read.problems.append(f"{PREFIX}RETENTION_DAYS must exceed {PREFIX}GRACE_DAYS by at least 1 day")
    if configuration.notification_retention < configuration.delivery_retention:
        read.problems.append(
            f"{PREFIX}NOTIFICATION_RETENTION_DAYS must not be less than {PREFIX}DELIVERY_RETENTION_DAYS:"
            " a delivery that can be read needs its notification"
        )
    if (configuration.tls_certificate is None) != (configuration.tls_key is None):
        read.problems.append(f"set both {PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY, or none of them")
    if configuration.tls_client_ca is not None and configuration.tls_certificate is None:
        read.problems.append(f"{PREFIX}TLS_CLIENT_CA needs {PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY")
    read.refuse_unknown()
    if read.problems:
        raise ConfigurationError(read.problems)
    return configuration
