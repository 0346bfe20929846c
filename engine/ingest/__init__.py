"""Usage events on their way into the database: queue, batches, commit."""
