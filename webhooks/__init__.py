"""The domain of webhook delivery, pure: retry schedule, health of endpoints, signatures and keys, URL policy."""
