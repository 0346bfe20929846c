"""Scrapes of a monitoring port, as Prometheus makes them."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import aiohttp
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True)
class Scraped:
    """What a scrape has shown."""

    families: Sequence[Metric]

    @property
    def samples(self) -> list[Sample]:
        """All series with their values."""
        return [sample for family in self.families for sample in family.samples]

    @property
    def names(self) -> set[str]:
        """The names of all series."""
        return {sample.name for sample in self.samples}

    def values(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The values of the series of that name, by their labels."""
        return {tuple(sorted(one.labels.items())): one.value for one in self.samples if one.name == name}

    def value(self, name: str, **labels: str) -> float:
        """The sum of the series of that name with these labels, whatever others they have."""
        found = [one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items()]
        assert found, f"the scrape has no {name} with {labels}"
        return sum(found)

    def has(self, name: str, **labels: str) -> bool:
        """Whether there is a series of that name with these labels."""
        return any(one.name == name and labels.items() <= one.labels.items() for one in self.samples)

    def labels_of(self, name: str, label: str) -> set[str]:
        """The values that a label has in the series of that name."""
        return {one.labels[label] for one in self.samples if one.name == name and label in one.labels}


def read(text: str, *, openmetrics: bool = False) -> Scraped:
    """Parses the text of a scrape, as strictly as the format asks for."""
    return Scraped(list((openmetrics_families if openmetrics else text_string_to_metric_families)(text)))


async def scrape(port: int, *, openmetrics: bool = False) -> Scraped:
    """Scrapes a port of loopback."""
    headers = {"Accept": OPENMETRICS} if openmetrics else {}
    return read(await get(port, "/metrics", headers), openmetrics=openmetrics)


async def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> str:
    """The text of an answer with status 200."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as response,
    ):
        assert response.status == 200, (path, response.status)
        return await response.text()


async def status(port: int, path: str) -> int:
    """The status of an answer."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
        return response.status


@contextmanager
def monitoring_socket() -> Iterator[tuple[socket.socket, int]]:
    """A socket that listens on a free port of loopback, and its port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening, listening.getsockname()[1]
