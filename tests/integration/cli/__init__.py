"""The command line against scripted servers."""
