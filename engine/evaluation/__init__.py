"""The evaluation of gauges inside a transaction."""
