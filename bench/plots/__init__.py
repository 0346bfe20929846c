"""Plots of results for docs/performance.md: `charts` says what to draw, `with_matplotlib` draws it as a script."""
