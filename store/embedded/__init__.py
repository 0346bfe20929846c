"""The embedded PostgreSQL server, for machines where no server is configured.

The binaries come from a wheel; everything else is ours. The server needs no Docker and no privilege, listens on a
unix socket only, and keeps its data in a directory. Every process that names the same directory shares one server:

- `layout` names the folders and files, `server_user` the user that the server runs as;
- `binaries` finds PostgreSQL, `cluster` makes a data directory and keeps its settings and rules of access;
- `locks` says which processes hold the server, `keeper` is the process that owns it and stops it after the last one;
- `holder` is a process that uses the server, `watch` the thread in it that starts a server again that ended.

docs/embedded.md describes what is made on the machine, and with which rights.
"""

from store.embedded.binaries import installed
from store.embedded.errors import CannotStart
from store.embedded.holder import Holder, hold, start
from store.embedded.watch import LogReporter, Reporter, watch

__all__ = ["CannotStart", "Holder", "LogReporter", "Reporter", "hold", "installed", "start", "watch"]
