"""The audit log: entries are written with the change, numbered after its commit, and read by number and by time."""
