"""The same deliveries through general job queues on PostgreSQL, each a script for an environment of its own."""
