"""A client of server-sent events, as the standard of HTML describes one."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from tests.support.gateway.http import HttpClient
from tests.support.waiting import within


@dataclass(frozen=True, slots=True)
class Event:
    """What arrived at once: an event with data, or only comments, an id or a time to come back after."""

    kind: str
    data: Any
    comments: tuple[str, ...]
    retry: int | None


class EventSource:
    """One connection. last_id: what a browser would send as Last-Event-ID when it comes back."""

    def __init__(self, response: Any) -> None:
        self._response = response
        self.last_id = ""

    async def next(self) -> Event | None:
        """What arrives next; None at the end of the stream."""
        kind, data, comments, retry, is_empty = "message", list[str](), list[str](), None, True
        async with within("an event"):
            async for line in self._response.content:
                text = line.decode().rstrip("\n")
                if not text:
                    return Event(kind, orjson.loads("\n".join(data)) if data else None, tuple(comments), retry)
                is_empty = False
                name, _, value = text.partition(":")
                value = value.removeprefix(" ")
                match name:
                    case "":
                        comments.append(value)
                    case "data":
                        data.append(value)
                    case "id":
                        self.last_id = value
                    case "event":
                        kind = value
                    case "retry":
                        retry = int(value)
        assert is_empty, "the stream ended in the middle of an event"
        return None

    async def data(self) -> Any:
        """The data of the next event that has some."""
        while (event := await self.next()) is not None:
            if event.data is not None:
                return event.data
        raise AssertionError("the stream ended")


@asynccontextmanager
async def event_source(
    client: HttpClient, target: str, last_id: str = "", **options: Any
) -> AsyncIterator[EventSource]:
    """Opens a stream of events."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_id} if last_id else {})
    async with client.opening(options.pop("method", "GET"), target, headers=headers, **options) as response:
        assert response.status == 200, await response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        yield EventSource(response)
