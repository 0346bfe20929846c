"""Enforcement, pure: which limits a usage meets, and whether it fits."""
