"""How calls are accepted: one whose path is no UTF-8 is refused, and the server goes on.

grpc.aio decodes the path of a call in the task that accepts the calls of all callers. A path that cannot be decoded
ends that task, and with it the server: one call, without a key, would end it for everyone. No handler and no
interceptor sees the call before, and gRPC has no function that shows its path before it is decoded. So the path is
read where gRPC keeps it: in the structure of the call, at a place that depends on the version of gRPC. It is only
read where that structure has the size of a version for which a test has shown that the place is right.
"""

import asyncio
import contextlib
import ctypes
import platform
import sys
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

# Size of an accepted call and of its base, in bytes: of gRPC 1.85. The base ends with the pointer to the call; a
# pointer to the methods of the class follows, then the details of the call, which begin with its path.
_KNOWN_SIZES = (224, 24)
_PATH_AT = 32


class _LongPath(ctypes.Structure):
    """A path outside of the structure."""

    _fields_ = (("length", ctypes.c_size_t), ("bytes", ctypes.c_void_p))


class _ShortPath(ctypes.Structure):
    """A path of up to 23 bytes, in the structure itself."""

    _fields_ = (("length", ctypes.c_uint8), ("bytes", ctypes.c_uint8 * 23))


class _EitherPath(ctypes.Union):
    _fields_ = (("long", _LongPath), ("short", _ShortPath))


class _Path(ctypes.Structure):
    """A slice of gRPC (`grpc_slice`). owner: of the bytes of a long path; None: the path is short."""

    _fields_ = (("owner", ctypes.c_void_p), ("either", _EitherPath))


def can_read_paths() -> bool:
    """Whether this version of gRPC keeps the paths of calls where `_path` reads them."""
    sizes = tuple(one.__basicsize__ for one in cygrpc.RPCState.__mro__[:2])
    return sizes == _KNOWN_SIZES and sys.byteorder == "little" and platform.python_implementation() == "CPython"


def refuse_bad_paths() -> None:
    """Makes servers of grpc.aio refuse calls whose path is no UTF-8. No effect on an unknown version of gRPC."""
    if can_read_paths() and not issubclass(cygrpc.AioServer, _Accepting):
        cygrpc.AioServer = _Accepting


def _path(accepted: Any) -> bytes:
    path = _Path.from_address(id(accepted) + _PATH_AT)
    if path.owner is None:
        return bytes(path.either.short.bytes[: path.either.short.length])
    return ctypes.string_at(path.either.long.bytes, path.either.long.length)


class _Accepting(cygrpc.AioServer):  # type: ignore[misc]
    """The part of a server of grpc.aio that accepts calls, with a check of their paths.

    Calls of registered methods do not come through here: their paths are known.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._refusals: set[asyncio.Task[None]] = set()

    async def _request_call(self) -> Any:
        while True:
            accepted = await super()._request_call()
            try:
                _path(accepted).decode()
            except UnicodeDecodeError:
                # The next call does not wait for an answer that the client may not take.
                refusal = asyncio.create_task(_refuse(accepted), name="refuse-path")
                self._refusals.add(refusal)
                refusal.add_done_callback(self._refusals.discard)
            else:
                return accepted


async def _refuse(accepted: Any) -> None:
    with contextlib.suppress(cygrpc.ExecuteBatchError):  # the client has gone
        await cygrpc._send_error_status_from_server(
            accepted,
            grpc.StatusCode.UNIMPLEMENTED.value[0],
            "the path of the call is no UTF-8",
            (),
            cygrpc.SendInitialMetadataOperation((), 0),
            asyncio.get_running_loop(),
        )
