"""Statements of a commit of usage that are sent together."""
