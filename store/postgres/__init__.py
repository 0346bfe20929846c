"""The way to PostgreSQL: connections and sessions, failures and retries, locks, listening, partitions."""
