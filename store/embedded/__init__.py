"""The embedded PostgreSQL server, for machines where no server is configured.

The programs come from a wheel. The server needs no Docker and no privilege, listens on a unix socket only, and keeps
its data in a directory. All processes that name the same directory share one server:

- `layout` names the folders and files, `server_user` the user that the server runs as;
- `binaries` finds PostgreSQL, `cluster` creates a data directory and writes its settings and access rules;
- `locks` shows which processes use the server, `keeper` is the process that runs it, and stops it after the last one;
- `holder` is the part of a process that uses the server, `watch` the thread in it that restarts a server that ended,
  `monitoring` its metrics.

docs/embedded.md describes which files exist on the machine, and with which rights.
"""

from store.embedded.binaries import installed
from store.embedded.errors import CannotStart
from store.embedded.holder import Holder, hold, start
from store.embedded.watch import DatabaseReporter, LogReporter, watch

__all__ = ["CannotStart", "DatabaseReporter", "Holder", "LogReporter", "hold", "installed", "start", "watch"]
