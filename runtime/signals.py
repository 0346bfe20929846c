"""The signals that ask a process to stop."""

import asyncio
import signal
from collections.abc import Callable

# A terminal that closes sends SIGHUP and its Ctrl-\ SIGQUIT; some supervisors stop a service with SIGQUIT.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# A process that was started with these ignored (nohup, a background job of a shell) is meant to go on.
_STAY_IGNORED = (signal.SIGHUP, signal.SIGQUIT)


def on_stop(callback: Callable[[], None]) -> Callable[[], None]:
    """Calls `callback` at each signal that asks to stop; returns what ends that.

    Call it in the main thread, inside the event loop. SIGHUP and SIGQUIT stay ignored when they were so at the start.
    """
    loop = asyncio.get_running_loop()
    followed = [
        number for number in STOPPING if number not in _STAY_IGNORED or signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in followed:
        loop.add_signal_handler(number, callback)

    def end() -> None:
        for number in followed:
            loop.remove_signal_handler(number)

    return end
