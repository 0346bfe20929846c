"""Client of Tidemark. `Client` is for programs with threads, `AsyncClient` for those with asyncio.

`tidemark_client.v1` has the messages and enums of the contract.
"""

from tidemark_client.async_client import AsyncClient, connect_async
from tidemark_client.client import Client, connect
from tidemark_client.connection.target import Tls
from tidemark_client.connection.version import VERSION
from tidemark_client.enforcement.checks import AsyncCachedChecks, CheckOptions
from tidemark_client.enforcement.guard import AsyncGuard, GuardOptions
from tidemark_client.enforcement.hold import Hold
from tidemark_client.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    ConnectionLost,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    FieldViolation,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    ResourceExhausted,
    TidemarkError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
)
from tidemark_client.threads.enforcement import CachedChecks, Guard
from tidemark_client.threads.usage import UsageWriter
from tidemark_client.threads.watch import Watcher
from tidemark_client.usage.events import usage_event
from tidemark_client.usage.options import Spill, WriterCounts, WriterOptions
from tidemark_client.usage.spill import SpillInUse
from tidemark_client.usage.writer import AsyncUsageWriter
from tidemark_client.watch.tokens import FileTokens, MemoryTokens, TokenStore
from tidemark_client.watch.watcher import AsyncWatcher, WatchOptions
from tidemark_client.webhooks.event import WebhookEvent
from tidemark_client.webhooks.verification import WebhookNotVerified, WebhookVerifier

__version__ = VERSION

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncCachedChecks",
    "AsyncClient",
    "AsyncGuard",
    "AsyncUsageWriter",
    "AsyncWatcher",
    "CachedChecks",
    "Cancelled",
    "CheckOptions",
    "Client",
    "ConnectionLost",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FieldViolation",
    "FileTokens",
    "Guard",
    "GuardOptions",
    "Hold",
    "Internal",
    "InvalidArgument",
    "MemoryTokens",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "Spill",
    "SpillInUse",
    "TidemarkError",
    "Tls",
    "TokenStore",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "UsageWriter",
    "WatchOptions",
    "Watcher",
    "WebhookEvent",
    "WebhookNotVerified",
    "WebhookVerifier",
    "WriterCounts",
    "WriterOptions",
    "__version__",
    "connect",
    "connect_async",
    "usage_event",
]
