"""The signals that stop a process."""

import asyncio
import signal
from collections.abc import Callable

# A terminal sends SIGHUP when it closes, and SIGQUIT at Ctrl-\; some supervisors stop a service with SIGQUIT.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# nohup and shells start a background process with these ignored, so that it continues without its terminal.
_STAY_IGNORED = (signal.SIGHUP, signal.SIGQUIT)


def on_stop(callback: Callable[[], None]) -> Callable[[], None]:
    """Calls `callback` at each signal of STOPPING; returns a function that ends this.

    Call it in the main thread, in the event loop. SIGHUP and SIGQUIT stay ignored if they were ignored at the start.
    """
    loop = asyncio.get_running_loop()
    handled = [
        number for number in STOPPING if number not in _STAY_IGNORED or signal.getsignal(number) is not signal.SIG_IGN
    ]
    for number in handled:
        loop.add_signal_handler(number, callback)

    def end() -> None:
        for number in handled:
            loop.remove_signal_handler(number)

    return end
