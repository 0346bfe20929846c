"""Who may call an RPC: API keys, the organization of each key, and the end of streams whose key is revoked."""
