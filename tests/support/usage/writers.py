"""Which customers have the same writer of a server with two writers, as `engine.ingest.lanes` divides them."""

from collections import defaultdict
from collections.abc import Iterable
from zlib import crc32

from tests.support.postgres.nodes import workers
from tests.support.postgres.worker_node import shards_of

WRITERS = 2  # of the servers in this process


def customers_of_writers(url: str, customers: Iterable[str]) -> list[list[str]]:
    """The customers of each writer, most customers first. url: of the server's database.

    On a cluster, all customers of a shard have one writer, and two shards may have the same one.
    """
    names = list(customers)
    shards = shards_of(url, names) if workers() else {}
    found = defaultdict[int, list[str]](list)
    for one in names:
        found[shards[one] if shards else crc32(one.encode()) % WRITERS].append(one)
    return sorted(found.values(), key=len, reverse=True)
