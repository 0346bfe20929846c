"""The erasure of customers: durable jobs, and the statements of their steps."""
