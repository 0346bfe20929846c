"""The erasure of a customer in the audit log: who changed something, when and from where stays; what it was goes."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from store.audit import numbering
from store.audit.entries import WITH_ASSIGNED_IDS

_IS_ASSIGNED = ", ".join(f"'{one.value}'" for one in WITH_ASSIGNED_IDS)

# A ctid is unique only within a partition.
_ERASE = text(f"""
UPDATE audit_entry SET customer_id = :pseudonym, before_state = NULL, after_state = NULL, erased = true,
    resource_id = CASE WHEN resource_type IN ({_IS_ASSIGNED}) THEN resource_id ELSE '' END
WHERE organization_id = :organization_id AND customer_id = :customer_id AND (tableoid, ctid) IN (
    SELECT tableoid, ctid FROM audit_entry
    WHERE organization_id = :organization_id AND customer_id = :customer_id LIMIT :limit
)
""")


# Entries of customers whose parent one of their states may name. A binary message has a text as its UTF-8.
_ERASE_PARENT = text("""
UPDATE audit_entry SET before_state = NULL, after_state = NULL, erased = true
WHERE organization_id = :organization_id AND customer_id = ANY(:below) AND resource_type = 'CUSTOMER'
    AND (position(convert_to(:parent, 'UTF8') IN before_state) > 0
         OR position(convert_to(:parent, 'UTF8') IN after_state) > 0)
""")


async def erase_customer(
    connection: AsyncConnection, organization_id: int, customer_id: str, pseudonym: str, limit: int
) -> tuple[int, bool]:
    """Erases a customer in up to `limit` entries; returns in how many, and whether more may be left."""
    if await numbering.assign_numbers(connection, organization_id):
        return 0, True  # entries without a number are not found by their customer
    erased = await connection.execute(
        _ERASE,
        {
            "organization_id": organization_id,
            "customer_id": customer_id,
            "pseudonym": pseudonym,
            "limit": limit,
        },
    )
    return int(erased.rowcount), erased.rowcount > 0


async def erase_parent(
    connection: AsyncConnection, organization_id: int, customer_ids: Sequence[str], parent: str
) -> None:
    """Erases what the entries of customers that name this parent show of them. All entries must have numbers."""
    values = {"organization_id": organization_id, "below": customer_ids, "parent": parent}
    await connection.execute(_ERASE_PARENT, values)
