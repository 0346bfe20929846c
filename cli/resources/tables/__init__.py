"""The table of resources, a module for each part of the contract."""
