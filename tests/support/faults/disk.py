"""A small file system of a test's own, which the test can fill."""

import contextlib
import os
import shutil
import subprocess

from tests.support.memory import server_folder

SIZE = 768  # MiB
_FILLER = "filler"


class Disk:
    """A file system in memory, where this process may mount one; otherwise a folder that cannot be filled."""

    def __init__(self) -> None:
        self.folder = server_folder()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SIZE}m", "tmpfs", self.folder], capture_output=True, check=False
        )
        self.can_be_filled = mounted.returncode == 0

    def fill(self) -> None:
        """Takes all that is free. What other processes free is not taken."""
        assert self.can_be_filled
        with (self.folder / _FILLER).open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(self.folder).free)
        with (self.folder / _FILLER).open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    def free(self) -> None:
        """Gives it back."""
        (self.folder / _FILLER).unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes it with all that it holds."""
        if self.can_be_filled:
            subprocess.run(["umount", "--lazy", self.folder], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)
