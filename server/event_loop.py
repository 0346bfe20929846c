"""The event loop of a server process."""

import functools
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVarTuple

import uvloop

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_Arguments = TypeVarTuple("_Arguments")

_MOST = 65_536  # bytes that are read at once; gRPC's socket holds a few hundred


class ServerLoop(uvloop.Loop):
    """An event loop that takes all operations that gRPC has completed, in each pass.

    A thread of gRPC writes a byte into a socket for each completed operation, and the reader that grpc.aio gives to
    the loop takes all operations, but only one byte. The bytes remain, and when the socket is full, that thread waits
    until the next pass of the loop: then one operation is completed in each pass, and a call of which ten operations
    have to be completed waits for hundreds of passes.
    """

    def add_reader(
        self,
        fd: "FileDescriptorLike",
        callback: Callable[[*_Arguments], Any],
        *args: *_Arguments,
    ) -> None:
        """Has `callback` called when `fd` can be read; the one of gRPC finds one byte in its socket."""
        if isinstance(fd, socket.socket) and _is_of_grpc(callback):
            super().add_reader(fd, functools.partial(_with_one_byte, fd, callback), *args)
        else:
            super().add_reader(fd, callback, *args)


def _is_of_grpc(callback: Callable[..., Any]) -> bool:
    function = getattr(callback, "func", callback)  # a partial
    return getattr(function, "__name__", "") == "_handle_events" and type(
        getattr(function, "__self__", None)
    ).__module__.startswith("grpc.")


def _with_one_byte(readable: socket.socket, callback: Callable[..., Any], *args: Any) -> None:
    # A byte is written after its operation can be taken. So whatever is written from now on has its own byte.
    waiting = len(readable.recv(_MOST, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    if waiting > 1:
        readable.recv(waiting - 1)
    callback(*args)
