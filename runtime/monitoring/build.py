"""Which version a process runs, as a metric."""

import platform
from importlib.metadata import version

from runtime.monitoring.instruments import Instruments


def add_build_info(instruments: Instruments, *, schema_revision: str, decoder: str = "") -> None:
    """Adds the versions of the program, of the schema that it makes, and of Python. decoder: that reads usage."""
    labels = (version("tidemark"), schema_revision, decoder, platform.python_version())
    instruments.gauge(
        "tidemark_build_info",
        "1; its labels are the version, the last migration of it, the decoder of usage, and the version of Python.",
        lambda: {labels: 1.0},
        labels=("version", "schema_revision", "decoder", "python"),
    )
