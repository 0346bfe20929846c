"""Backfills: new and changed alerts are evaluated on what exists already."""
