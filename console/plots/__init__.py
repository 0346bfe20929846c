"""Plots as SVG: bars and curves, with a text for each."""
