"""Signals that the start of the tests has ignored, as nohup and the background of a shell do.

The programs that tests start would ignore them, too, and the tests that end programs by these signals would fail.
"""

import signal

_ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def heed() -> None:
    """Gives signals that are ignored their usual effect, for this process and those that it starts."""
    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_IGN:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, usual)
