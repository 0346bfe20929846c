"""The credentials of endpoints: stored sealed, never shown."""

from collections import Counter
from typing import Any

from sqlalchemy import null, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.webhooks import endpoint
from webhooks.secret_box import SecretBox, credentials_context


def sealed_credentials(
    organization_id: int, endpoint_id: str, credentials: str | None, box: SecretBox | None
) -> dict[str, Any]:
    """The columns of an endpoint's credentials. `box` may be None when there are no credentials."""
    if credentials is None:
        return {"credentials": null(), "credentials_key_id": null()}
    if box is None:
        raise ValueError("credentials are not stored without a master key to seal them with")
    sealed = box.seal(credentials.encode(), credentials_context(organization_id, endpoint_id))
    return {"credentials": sealed, "credentials_key_id": box.key_id}


async def reencrypt_credentials(
    connection: AsyncConnection, box: SecretBox, after: tuple[int, str], limit: int
) -> tuple[Counter[int], tuple[int, str] | None]:
    """Seals the credentials of up to `limit` endpoints of any organization with the current master key.

    after: the key of the last row seen. Returns how many were sealed again, by organization, and the key of the last
    of them; None at the end. Raises CannotOpen.
    """
    key = tuple_(endpoint.c.organization_id, endpoint.c.endpoint_id)
    rows = (
        await connection.execute(
            select(endpoint.c.organization_id, endpoint.c.endpoint_id, endpoint.c.credentials)
            .where(
                endpoint.c.credentials.is_not(None),
                endpoint.c.credentials_key_id != box.key_id,
                key > tuple_(*after),
            )
            .order_by(endpoint.c.organization_id, endpoint.c.endpoint_id)
            .limit(limit)
            .with_for_update(key_share=True)
        )
    ).all()
    for row in rows:
        context = credentials_context(row.organization_id, row.endpoint_id)
        await connection.execute(
            update(endpoint)
            .where(endpoint.c.organization_id == row.organization_id, endpoint.c.endpoint_id == row.endpoint_id)
            .values(credentials=box.seal(box.open(row.credentials, context), context), credentials_key_id=box.key_id)
        )
    return Counter(row.organization_id for row in rows), (
        rows[-1].organization_id,
        rows[-1].endpoint_id,
    ) if rows else None
