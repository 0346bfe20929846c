"""The metrics and the health of several child processes, as one process shows them for its parent's port.

Each child listens on a socket that the parent has made and passed on. The parent asks all of them at the same time.
A child that hangs or has ended does not answer in time: the scrape has the others then, and says which is missing.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
from prometheus_client import CollectorRegistry

from runtime.monitoring.exposition import Exposition, exposition
from runtime.monitoring.instruments import Instruments
from runtime.monitoring.merging import Scrape, label_of, merged

TIMEOUT = 2.0  # seconds in which a child must answer; Prometheus waits 10 by default


@dataclass(frozen=True)
class Member:
    """A child process.

    label, value: of its series, such as worker and 1. port: of its socket on loopback. has_started: whether it was
    ready once since its last start; until then it may take its time to answer.
    """

    label: str
    value: str
    port: int
    has_started: Callable[[], bool]


class CombinedProcesses:
    """The child processes of this process."""

    def __init__(
        self,
        members: Sequence[Member],
        session: aiohttp.ClientSession,
        instruments: Instruments,
        *,
        needs_all: bool,
        timeout: float = TIMEOUT,
    ) -> None:
        """instruments: of this process itself. needs_all: it is ready when all members are, not one."""
        self._members = members
        self._session = session
        self._registry: CollectorRegistry = instruments.registry
        self._needs_all = needs_all
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._answered: dict[str, bool] = {}  # by the value of the label, at the last scrape
        instruments.gauge(
            "tidemark_child_up",
            "1 if the child process answered this scrape, 0 if it did not.",
            lambda: {(member.value,): float(self._answered.get(member.value, False)) for member in members},
            labels=(members[0].label,),
        )

    async def is_alive(self) -> bool:
        """Whether each child that has started answers; one that is starting again may take its time."""
        started = [member for member in self._members if member.has_started()]
        return all(await asyncio.gather(*(self._says_yes(member, "/healthz") for member in started)))

    async def is_ready(self) -> bool:
        """Whether all children are ready, or one of them, as this process needs.

        It answers as soon as that is certain: a probe has less patience than TIMEOUT, and one child may hang.
        """
        asked = [asyncio.ensure_future(self._says_yes(member, "/readyz")) for member in self._members]
        try:
            for answer in asyncio.as_completed(asked):
                if await answer is not self._needs_all:
                    return not self._needs_all
            return self._needs_all
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def scrape(self, accept: str) -> Exposition:
        """The metrics of this process and of each child that answers."""
        found = await asyncio.gather(*(self._scrape(member, accept) for member in self._members))
        self._answered = {member.value: text is not None for member, text in zip(self._members, found, strict=True)}
        own = await exposition(self._registry, accept)
        scrapes = [
            Scrape(text, label_of(member.label, member.value))
            for member, text in zip(self._members, found, strict=True)
            if text is not None
        ]
        return Exposition(
            merged([Scrape(own.body.decode(), None), *scrapes], is_openmetrics=own.is_openmetrics), own.content_type
        )

    async def _says_yes(self, member: Member, path: str) -> bool:
        return await self._get(member, path, "") is not None

    async def _scrape(self, member: Member, accept: str) -> str | None:
        return await self._get(member, "/metrics", accept)

    async def _get(self, member: Member, path: str, accept: str) -> str | None:
        """The answer of a child; None when it does not answer in time, or with an error."""
        url = f"http://127.0.0.1:{member.port}{path}"
        try:
            async with self._session.get(url, headers={"Accept": accept}, timeout=self._timeout) as response:
                return await response.text() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
