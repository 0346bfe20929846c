"""Gives a process of Tidemark a clock that a test can step. Python imports this module when it starts.

The process does not change its program: it is `tidemark serve` or `tidemark notify`, with the folder of this module
in PYTHONPATH. TIDEMARK_TEST_CLOCK names a file with the seconds that the clock is ahead, as a double.
"""

import os
import struct
from datetime import datetime, timedelta
from pathlib import Path

_file = os.environ.get("TIDEMARK_TEST_CLOCK")
if _file is not None:
    from runtime.clock import SystemClock

    _of_machine = SystemClock.now
    _path = Path(_file)

    def _stepped(clock: SystemClock) -> datetime:
        [ahead] = struct.unpack("d", _path.read_bytes())
        return _of_machine(clock) + timedelta(seconds=ahead)

    SystemClock.now = _stepped  # type: ignore[assignment, method-assign]
