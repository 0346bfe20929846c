"""The quotas of organizations: their values, and what the processes together use of them."""
