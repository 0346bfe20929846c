"""The fault run: random faults under load, and an independent tally of what they must not change."""
