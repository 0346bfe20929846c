"""Usage as CloudEvents 1.0: their forms over HTTP, and what of them becomes a usage event."""
