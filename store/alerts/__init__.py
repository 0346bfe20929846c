"""Alert definitions, their changes and history, exclusions, states, and the backfills that are not complete."""
