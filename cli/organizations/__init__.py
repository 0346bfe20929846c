"""The commands of the operator on the database: keys, quotas and secrets of organizations."""
