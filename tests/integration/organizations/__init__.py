"""Tests that organizations with the same ids of everything do not meet: one life, alone and beside another."""
