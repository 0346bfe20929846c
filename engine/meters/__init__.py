"""Meters: what enforced limits count, moved by the commits of usage and of enforcement alike."""
