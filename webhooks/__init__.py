"""The domain of webhook delivery, pure: health of endpoints, signature, schedule, URL policy."""
