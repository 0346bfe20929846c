"""A cluster of Citus: how its nodes are checked and added, and how the tables get to their places.

`store.tables.placement` says where each table lies, `store.postgres.distributed` whether they are distributed.
"""
