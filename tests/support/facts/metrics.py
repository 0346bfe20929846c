"""Metrics that are put directly in the store, as `engine.puts.metric_puts` does."""

from datetime import datetime

from store.accounts import metrics
from store.accounts.metrics import MetricFact, StoredMetric
from store.identity import organizations
from store.postgres.database import Database


async def put_metric_fact(database: Database, organization_id: int, fact: MetricFact, now: datetime) -> StoredMetric:
    """Stores a fact about a metric, unless a newer one is stored; returns what is stored."""
    while True:
        async with database.transaction() as connection:
            put = await metrics.put_existing(connection, organization_id, fact, now)
            if put is not None:
                return put.stored
            epoch = await organizations.begin_change(connection, organization_id)
            created = await metrics.create(connection, organization_id, fact, epoch, now)
            if created is not None:
                return created
