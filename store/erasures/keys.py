"""API keys that are limited to an erased customer: they end, and say nothing of the customer any more.

The id of an erased customer can be that of a new one, which these keys would otherwise read.
"""

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.audit import json_states, writing
from store.audit.entries import SERVER, Changed, NewEntry, ResourceType
from store.erasures.jobs import ErasureJob
from store.identity.keys import revoke_key
from store.postgres.database import driver
from store.tables.accounts import api_key


async def revoke_keys(connection: AsyncConnection, job: ErasureJob, now: datetime) -> None:
    """Revokes the keys of the customer, gives them its pseudonym, and records that in the audit log."""
    its_keys = (api_key.c.organization_id == job.organization_id) & (api_key.c.customer_id == job.customer_id)
    found = await connection.execute(
        select(api_key.c.key_id, api_key.c.revoke_time).where(its_keys).order_by(api_key.c.key_id).with_for_update()
    )
    active = [row.key_id for row in found if row.revoke_time is None]
    for key_id in active:
        await revoke_key(connection, key_id, now)
    await connection.execute(update(api_key).where(its_keys).values(customer_id=job.pseudonym, display_name=""))
    entries = [NewEntry(SERVER, _revoked(key_id, job.pseudonym, now)) for key_id in active]
    await writing.write(await driver(connection), job.organization_id, entries, now)


def _revoked(key_id: str, pseudonym: str, now: datetime) -> Changed:
    before, after = (
        json_states.api_key(
            key_id,
            display_name="",
            roles=(),
            customer_id=pseudonym,
            identity="",
            expire_time=None,
            revoke_time=revoke_time,
        )
        for revoke_time in (None, now)
    )
    return Changed(ResourceType.API_KEY, key_id, pseudonym, before, after)
