"""The commands that run and prepare the service: `tidemark up`, `serve`, `notify`, `migrate` and others."""
