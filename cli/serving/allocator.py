"""The C library's allocator in a server or notifier process."""

import ctypes
import os

# <malloc.h> of glibc
_M_ARENA_MAX = -8


def use_one_arena() -> None:
    """Lets all threads share one heap, where the C library is glibc. Call it before the process has many threads.

    By default glibc gives each thread of gRPC a heap (arena) of its own, up to eight for each core. What one thread
    has freed, another one cannot use, so the memory of the process grows with the number of threads that have ever
    had a large message, although no object is left. Threads wait for a shared heap only for moments: Python holds
    its interpreter's lock for most allocations. MALLOC_ARENA_MAX in the environment is respected.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be called
        return
    mallopt(_M_ARENA_MAX, 1)
