"""Access to PostgreSQL: connections and sessions, failures and retries, locks, LISTEN, savepoints, partitions."""
