"""The audit log: entries, streams, retention, erasure."""
