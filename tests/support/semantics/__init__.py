"""The table of the 23 conditions, and the helpers that move their gauges."""
