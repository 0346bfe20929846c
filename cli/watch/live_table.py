"""The live table: a screen that is refreshed at an interval, and after each notification."""

import asyncio
import contextlib
from collections.abc import Iterator

import grpc
from rich.console import Console
from rich.live import Live
from rich.markup import escape

from cli.client.connection import Address
from cli.rich_console import standard_output
from cli.watch.screen import row_capacity, screen
from cli.watch.state_reader import Frame, StateFilter, StateReader
from generated.tidemark.v1.alert_service_pb2 import WatchNotificationsRequest
from tidemark_client.errors import TidemarkError
from tidemark_client.watch.stream import NotificationStream

SHORTEST_INTERVAL = 0.2  # seconds between two refreshes, for any number of notifications
REST_FACTOR = 4  # the pause after a refresh is at least so many times as long as the refresh took

_NO_ANSWER = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def show_live_table(address: Address, filters: StateFilter, interval: float) -> None:
    """Shows the table until the command is ended. Raises AioRpcError when the first refresh fails."""
    console = standard_output()
    async with address.channel() as channel:
        table = _LiveTable(console, StateReader(channel, address.metadata, filters), address.server)
        await table.read()
        changed = asyncio.Event()
        following = asyncio.create_task(
            _set_at_notifications(changed, channel, address, filters), name="notifications"
        )
        with Live(console=console, screen=True, auto_refresh=False) as live, _cancelled_at_end(following):
            while True:
                table.draw(live)
                await table.wait(changed, interval)
                await table.refresh()


class _LiveTable:
    """The frame that is shown, and how long the last refresh took."""

    def __init__(self, console: Console, reader: StateReader, server: str) -> None:
        self._console = console
        self._reader = reader
        self._server = server
        self._frame = Frame()
        self._note = ""
        self._refresh_seconds = 0.0

    async def read(self) -> None:
        """Reads the rows that fit on the screen. Raises AioRpcError."""
        self._frame = await self._reader.read_screen(row_capacity(self._console.height))
        self._note = ""

    async def refresh(self) -> None:
        """Reads again. While no server answers, the last rows stay on the screen, with a note."""
        clock = asyncio.get_running_loop().time
        started = clock()
        try:
            await self.read()
        except grpc.aio.AioRpcError as error:
            if error.code() not in _NO_ANSWER:
                raise
            self._note = f"  [bad]no answer[/], these are the last states: {escape(error.details() or '')}"
        self._refresh_seconds = clock() - started

    def draw(self, live: Live) -> None:
        """Draws the frame at the present size of the terminal."""
        width, height = self._console.size
        live.update(screen(self._frame, width, height, self._server, self._note), refresh=True)

    async def wait(self, changed: asyncio.Event, interval: float) -> None:
        """Waits for the interval, or for a change after the shortest pause."""
        # Frequent notifications do not make a slow read more frequent.
        shortest = max(SHORTEST_INTERVAL, REST_FACTOR * self._refresh_seconds)
        await asyncio.sleep(shortest)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, interval - shortest)):
                await changed.wait()
        changed.clear()


@contextlib.contextmanager
def _cancelled_at_end(task: "asyncio.Task[None]") -> Iterator[None]:
    try:
        yield
    finally:
        task.cancel()


async def _set_at_notifications(
    changed: asyncio.Event, channel: grpc.aio.Channel, address: Address, filters: StateFilter
) -> None:
    """Sets `changed` at each notification, so that the table shows its effect before the interval ends."""
    request = WatchNotificationsRequest(customer_ids=filters.customers, alert_ids=filters.alerts)
    stream = NotificationStream(channel, address.metadata, request)
    with contextlib.suppress(TidemarkError):  # without the stream, the table is refreshed at its interval
        async for _ in stream.notifications():
            changed.set()
