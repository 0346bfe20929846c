"""The hot path: usage events in, durable and evaluated, transitions out."""
