"""Usage events, the gauges that they move, recounts, and what the router needs of the facts."""
