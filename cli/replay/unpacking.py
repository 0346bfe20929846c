"""Unpacks compressed files, which their first bytes name: gzip, and zstd where a module for it is installed."""

import gzip
import importlib
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cli.console import install_command

INSTALL = install_command("replay")
_ZSTD_MODULES = ("compression.zstd", "backports.zstd")  # Python has one from version 3.14


class NoUnpacker(Exception):
    """No module for this compression is installed. command: installs one. tool: a program that unpacks it."""

    def __init__(self, name: str, tool: str) -> None:
        super().__init__(f"it is compressed with {name}, for which a module is missing")
        self.command = INSTALL
        self.tool = tool


@dataclass(frozen=True)
class Packing:
    """A compression. open: a file of the content, given the packed file. Raises NoUnpacker."""

    name: str
    magics: tuple[bytes, ...]
    open: Callable[[io.BufferedReader], Any]


def _zstd_module() -> Any:
    for name in _ZSTD_MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise NoUnpacker("zstd", "zstdcat")


def _zstd_errors() -> tuple[type[Exception], ...]:
    try:
        return (_zstd_module().ZstdError,)
    except NoUnpacker:
        return ()


GZIP = Packing("gzip", (b"\x1f\x8b",), lambda packed: gzip.GzipFile(fileobj=packed))
# The second kind are frames with content of another program, which stand before those with the data.
_SKIPPABLE = tuple(bytes((0x50 + kind, 0x2A, 0x4D, 0x18)) for kind in range(16))
ZSTD = Packing("zstd", (b"\x28\xb5\x2f\xfd", *_SKIPPABLE), lambda packed: _zstd_module().ZstdFile(packed))
PACKINGS = (GZIP, ZSTD)
UNPACKING_ERRORS: tuple[type[Exception], ...] = (EOFError, zlib.error, *_zstd_errors())  # BadGzipFile is an OSError


def packing_of(head: bytes) -> Packing | None:
    """The compression of a file that begins with these bytes; None: it is not compressed."""
    return next((packing for packing in PACKINGS if head.startswith(packing.magics)), None)


class Unpacked(io.RawIOBase):
    """The content of a packed file. Members that follow each other are one content. Of a truncated file it returns
    everything before its end, and then raises EOFError.
    """

    def __init__(self, packed: io.BufferedReader, packing: Packing) -> None:
        self._packed = packed
        self._content = packing.open(packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io's stub wants any buffer
        data = self._content.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._content.close()
            self._packed.close()
        super().close()
