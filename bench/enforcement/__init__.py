"""The part `enforcement`: what checks, reservations and settlements cost, beside what a team would use instead."""
