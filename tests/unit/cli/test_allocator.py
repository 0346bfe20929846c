"""All threads of a server share one heap of the C library."""

import ctypes
import os
import subprocess
import sys

import pytest

# Eight threads allocate while the others wait; then the C library writes one <heap> for each arena to stdout.
HEAPS = """
import ctypes, threading
from cli.serving.allocator import use_one_arena
use_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
all_are_here = threading.Barrier(8)
def allocate():
    libc.malloc(1_000)
    all_are_here.wait()
threads = [threading.Thread(target=allocate) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
stdout = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stdout)
libc.fflush(stdout)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library is not glibc")
@pytest.mark.parametrize(("chosen", "heaps"), [({}, 1), ({"MALLOC_ARENA_MAX": "3"}, 3)])
def test_threads_share_the_heaps_that_the_environment_or_else_the_process_allows(
    chosen: dict[str, str], heaps: int
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    ended = subprocess.run(
        [sys.executable, "-c", HEAPS], env=environment | chosen, capture_output=True, text=True, check=True
    )
    assert ended.stdout.count("<heap nr=") == heaps, ended.stdout
