"""Client of Tidemark. `Client` is for programs with threads, `AsyncClient` for those with asyncio.

`tidemark_client.v1` has the messages and enums of the contract.
"""

from tidemark_client.async_client import AsyncClient, connect_async
from tidemark_client.client import Client, connect
from tidemark_client.connection.target import Tls
from tidemark_client.connection.version import VERSION
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

__version__ = VERSION

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "Cancelled",
    "Client",
    "ConnectionLost",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "FieldViolation",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "TidemarkError",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "__version__",
    "connect",
    "connect_async",
]
