"""Tests that organizations with the same ids are isolated: calls and rows, alone and beside another."""
