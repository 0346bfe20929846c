"""The text of a scrape. It is made in slices: thousands of series would otherwise stop the event loop for long."""

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from runtime.turns import Slices

END = b"# EOF\n"  # the last line of the OpenMetrics format; the older text format has none
OPENMETRICS = "application/openmetrics-text"

_KEY = "scrape"  # of its turns on the event loop, beside the organizations


@dataclass(frozen=True, slots=True)
class Exposition:
    """Metrics as text. content_type: the format, with its version."""

    body: bytes
    content_type: str

    @property
    def is_openmetrics(self) -> bool:
        """Whether it is in the OpenMetrics format, which has exemplars."""
        return self.content_type.startswith(OPENMETRICS)


class _Family:
    """One family of metrics, as the encoder takes it."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


async def exposition(registry: CollectorRegistry, accept: str) -> Exposition:
    """All metrics of a registry, in the format that the header Accept asks for."""
    encode, content_type = choose_encoder(accept)
    slices, parts = Slices(_KEY), list[bytes]()
    slices.begin_at_once()
    for family in registry.collect():
        parts.append(encode(_Family(family)).removesuffix(END))
        await slices.pause()
    found = Exposition(b"".join(parts), content_type)
    return Exposition(found.body + END, content_type) if found.is_openmetrics else found
