"""A clock that all servers of a fault run share, and that the run steps."""

import os
import struct
from pathlib import Path

LONGEST_STEP = 3_600.0  # seconds by which a run steps the clock, either way

FOLDER = Path(__file__).with_name("stepping")


class SteppedClock:
    """The file from which the processes read how many seconds their clock is ahead of the machine's."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.step(0.0)

    def step(self, ahead: float) -> None:
        """Sets the clock to `ahead` seconds from the machine's; negative: behind it."""
        # Renamed, so that no process reads half of it.
        new = self._file.with_suffix(".new")
        new.write_bytes(struct.pack("d", ahead))
        new.replace(self._file)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a process with this clock."""
        path = os.pathsep.join(filter(None, (str(FOLDER), os.environ.get("PYTHONPATH", ""))))
        return {"TIDEMARK_TEST_CLOCK": str(self._file), "PYTHONPATH": path}
