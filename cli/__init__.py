"""The `tidemark` command."""

import os

# gRPC's core writes lines of its own to standard error where our commands say the same in words.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
