"""Usage events, the gauges that they move, and what an evaluation writes."""
