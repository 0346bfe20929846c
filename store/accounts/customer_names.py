"""External ids and aliases: further ids by which customers are found, unique in their organization.

A transaction that changes them must hold the organization's lock exclusively: then no other one takes the same name.
"""

from collections.abc import Sequence
from enum import StrEnum

from sqlalchemy import delete, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.accounts import customer_name


class NameKind(StrEnum):
    """What a name is. Names of different kinds may be equal."""

    EXTERNAL_ID = "EXTERNAL_ID"
    ALIAS = "ALIAS"


class CustomerNameTaken(Exception):
    """Another customer, `customer_id`, has the name."""

    def __init__(self, kind: NameKind, name: str, customer_id: str) -> None:
        super().__init__(kind, name)
        self.kind = kind
        self.name = name
        self.customer_id = customer_id


async def replace_names(
    connection: AsyncConnection,
    organization_id: int,
    customer_id: str,
    external_id: str | None,
    aliases: Sequence[str],
) -> None:
    """Gives a customer these names in place of those that it has. Raises CustomerNameTaken."""
    of_organization = customer_name.c.organization_id == organization_id
    await connection.execute(delete(customer_name).where(of_organization, customer_name.c.customer_id == customer_id))
    names = [(NameKind.ALIAS.value, alias) for alias in aliases]
    if external_id is not None:
        names.insert(0, (NameKind.EXTERNAL_ID.value, external_id))
    if not names:
        return
    of_others = await connection.execute(
        select(customer_name)
        .where(of_organization, tuple_(customer_name.c.kind, customer_name.c.name).in_(names))
        .order_by(customer_name.c.kind.desc(), customer_name.c.name)
        .limit(1)
    )
    if (other := of_others.one_or_none()) is not None:
        raise CustomerNameTaken(NameKind(other.kind), other.name, other.customer_id)
    rows = [
        {"organization_id": organization_id, "kind": kind, "name": name, "customer_id": customer_id}
        for kind, name in names
    ]
    await connection.execute(insert(customer_name), rows)


async def customer_of(connection: AsyncConnection, organization_id: int, kind: NameKind, name: str) -> str | None:
    """The id of the customer that has the name, or None."""
    return await connection.scalar(
        select(customer_name.c.customer_id).where(
            customer_name.c.organization_id == organization_id,
            customer_name.c.kind == kind.value,
            customer_name.c.name == name,
        )
    )
