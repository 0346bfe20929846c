"""The server's event loop takes all operations that gRPC has completed, in each pass."""

import asyncio
import socket

import grpc
import pytest

from server import event_loop
from server.event_loop import ServerLoop


class PollerCompletionQueue:
    """The reader of gRPC's socket, which reads one byte in each pass. Its module and its method have gRPC's names."""

    __module__ = "grpc._cython.cygrpc"

    def __init__(self, readable: socket.socket) -> None:
        self.readable = readable
        self.read = 0
        self.passes = 0
        self.called = asyncio.Event()

    def _handle_events(self) -> None:
        self.read += len(self.readable.recv(1))
        self.passes += 1
        self.called.set()


def test_the_socket_of_grpc_is_emptied_in_one_pass() -> None:
    async def passes_for(bytes_written: int) -> tuple[int, int]:
        readable, writable = socket.socketpair()
        with readable, writable:
            queue = PollerCompletionQueue(readable)
            writable.send(b"1" * bytes_written)
            loop = asyncio.get_running_loop()
            loop.add_reader(readable, queue._handle_events)
            await queue.called.wait()
            for _ in range(10):
                await asyncio.sleep(0)
            loop.remove_reader(readable)
            return queue.passes, queue.read

    with asyncio.Runner(loop_factory=ServerLoop) as runner:
        assert runner.run(passes_for(1)) == (1, 1)
        assert runner.run(passes_for(200)) == (1, 1), "the other 199 bytes are removed before"


def test_other_readers_of_sockets_are_called_as_they_are() -> None:
    async def read() -> bytes:
        readable, writable = socket.socketpair()
        with readable, writable:
            loop, can_be_read = asyncio.get_running_loop(), asyncio.Event()
            loop.add_reader(readable, can_be_read.set)
            writable.send(b"12345")
            await can_be_read.wait()
            loop.remove_reader(readable)
            return readable.recv(100)

    with asyncio.Runner(loop_factory=ServerLoop) as runner:
        assert runner.run(read()) == b"12345"


def test_the_reader_that_grpc_adds_is_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = 0
    with_one_byte = event_loop._with_one_byte

    def counted(*arguments: object) -> None:
        nonlocal passes
        passes += 1
        with_one_byte(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(event_loop, "_with_one_byte", counted)

    async def call() -> grpc.StatusCode:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/a/b")
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await method(b"")
                return refused.value.code()
        finally:
            await server.stop(0)

    with asyncio.Runner(loop_factory=ServerLoop) as runner:
        assert runner.run(call()) is grpc.StatusCode.UNIMPLEMENTED
    assert passes > 0, "grpc.aio has another reader now: see server/event_loop.py"
