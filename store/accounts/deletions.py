"""Deletions of subscriptions and metrics, which routers cache and usage may name at any time.

To search the stored events for a metric can take long, and the organization's lock would stop ingest meanwhile. So a
deletion has two transactions, and the search happens between them:

`begin` raises the epoch, so that every router forgets the fact, and notes the deletion. Usage that names the fact
afterwards has to read it, and then cancels the deletion (`store.rules.routing_facts.cancel_deletions`). `finish`
removes the fact unless its deletion was cancelled. The note stays, because routers that are older than `finish` read
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.erasures import jobs as erasures
from store.identity import organizations
from store.tables.accounts import fact_deletion, metric, subscription


class FactKind(StrEnum):
    """What is deleted."""

    METRIC = "METRIC"
    SUBSCRIPTION = "SUBSCRIPTION"


@dataclass(frozen=True)
class FactKey:
    """A metric, or a subscription of a customer. customer_id: empty for a metric."""

    kind: FactKind
    fact_id: str
    customer_id: str = ""

    @property
    def ids(self) -> Mapping[str, str]:
        """The ids by the names of their columns."""
        if self.kind is FactKind.METRIC:
            return {"metric_id": self.fact_id}
        return {"customer_id": self.customer_id, "subscription_id": self.fact_id}


async def begin(connection: AsyncConnection, organization_id: int, key: FactKey) -> int:
    """Makes routers forget the fact, and notes that it is being deleted; returns the new epoch.

    Raises CustomerBeingErased.
    """
    epoch = await organizations.begin_change(connection, organization_id)
    if key.kind is FactKind.SUBSCRIPTION:
        await erasures.refuse_during(connection, organization_id, key.customer_id)
    statement = insert(fact_deletion).values(
        organization_id=organization_id,
        kind=key.kind.value,
        customer_id=key.customer_id,
        fact_id=key.fact_id,
        changed_epoch=epoch,
    )
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=list(fact_deletion.primary_key.columns), set_={"changed_epoch": epoch}
        )
    )
    return epoch


async def is_noted(connection: AsyncConnection, organization_id: int, key: FactKey, begun: int) -> bool:
    """Whether the deletion that began at that epoch is still noted: neither cancelled nor begun again."""
    found = await connection.scalar(select(fact_deletion.c.changed_epoch).where(*_noted(organization_id, key)))
    return found == begun


async def finish(connection: AsyncConnection, organization_id: int, key: FactKey, epoch: int) -> None:
    """Removes the fact. epoch: the new one, which the transaction has raised."""
    table = metric if key.kind is FactKind.METRIC else subscription
    conditions = [table.c[name] == value for name, value in key.ids.items()]
    await connection.execute(delete(table).where(table.c.organization_id == organization_id, *conditions))
    await connection.execute(update(fact_deletion).where(*_noted(organization_id, key)).values(changed_epoch=epoch))


def _noted(organization_id: int, key: FactKey) -> tuple[ColumnElement[bool], ...]:
    columns = fact_deletion.c
    return (
        columns.organization_id == organization_id,
        columns.kind == key.kind.value,
        columns.customer_id == key.customer_id,
        columns.fact_id == key.fact_id,
    )
