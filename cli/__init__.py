"""The `tidemark` command."""

import os

# gRPC's core would print its own lines on standard error, beside the error messages of the commands.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
