"""The tests, in three rings: unit (no I/O), integration (a real PostgreSQL), acceptance (real processes)."""

import os

# Before gRPC is imported: its handlers run in each process that a test forks, for example to start a server while
# clients stream, and may crash it before it is the server.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
