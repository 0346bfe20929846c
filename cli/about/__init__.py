"""What this command and its server are, and how a shell completes the command: `tidemark version` and `completion`."""
