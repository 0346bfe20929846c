"""PostgreSQL's own client programs for the embedded server: where they are, and how they connect."""

import os
from pathlib import Path

from store.embedded import binaries
from store.embedded.cluster import SUPERUSER
from store.embedded.layout import PORT, Layout
from store.embedded.server_user import server_user


def connection_variables(directory: Path, url: str, path: str) -> dict[str, str]:
    """The environment with which programs connect to the server of `directory`, which runs at `url`.

    path: the PATH to extend.
    """
    layout = Layout(directory.absolute())
    programs = binaries.installation(layout, server_user(layout)) / "bin"
    return {
        "PATH": os.pathsep.join([str(programs), path]),
        "PGHOST": url.partition("?host=")[2],
        "PGPORT": str(PORT),
        "PGUSER": SUPERUSER,
        "PGDATABASE": "postgres",
    }
