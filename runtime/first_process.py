"""The first process of a container, which the kernel treats in another way than all others."""

import os
import signal


def end_at_sigterm() -> None:
    """Lets SIGTERM end this process at once if its id is 1, until the command sets a handler of its own.

    The kernel keeps signals without a handler from the process with the id 1. So a container that is stopped while it
    starts or migrates would run on until it is killed, after the whole grace period. The exit code is 143, as a shell
    reports a process that SIGTERM ended. All other processes keep the default action, which is the same.

    Call it in the main thread.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
