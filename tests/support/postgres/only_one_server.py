"""Marks of tests that a cluster skips, because of what the test itself does and not of what it tests."""

import pytest

from tests.support.postgres.nodes import workers


def _one_server(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(bool(workers()), reason=f"needs one PostgreSQL server: {reason}")


# Counters of rows and EXPLAIN show the coordinator's part of a statement; its rows are read from shards.
reads_plans = _one_server("the test counts the rows that statements read; those of shards are not shown")
# `storage.dead_rows` reads the statistics of the node that it is connected to.
counts_dead_rows = _one_server("rows of Citus' tables lie in shards, whose statistics the check does not read")
# `store.citus.event_keys` makes the keys of all partitions anew.
has_old_keys = _one_server("distributed partitions of events never have the earlier key")
# `tests.support.postgres.one_server` says which, and what does the work instead.
quiet_puts = _one_server("the test shows an optimization that a cluster leaves out")
# A statement locks the rows of each shard by itself, so two transactions can deadlock; commits and visits try again.
order_across_shards = _one_server("a cluster locks rows in order within a shard only")
# `engine.ingest.storing` then inserts all events of the commit.
names_rows_of_copy = _one_server("Citus does not say at which row COPY met an event that is stored")
# On a cluster, one transaction of one node writes a notification and its row of feed_pending.
splits_commits = _one_server("the test shows the two halves of a commit one after the other")
