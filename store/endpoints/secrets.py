"""The signing secrets of endpoints, sealed at rest: added, rotated, listed and encrypted again."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, insert, null, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.webhooks import endpoint_secret
from webhooks.secret_box import CannotOpen, SecretBox, secret_context
from webhooks.signing_keys import Scheme, new_signing_key, scheme_of, verification_key

MAX_LIVE = 5  # secrets of one endpoint that sign at a time


@dataclass(frozen=True)
class SigningKey:
    """A secret that signs now, without the secret itself."""

    organization_id: int
    endpoint_id: str
    sequence: int
    scheme: Scheme
    public_key: str  # "whpk_…"; empty for HMAC_SHA256, and where the secret cannot be opened
    create_time: datetime
    not_after: datetime | None  # unset for the newest one


class TooManySecrets(Exception):
    """MAX_LIVE secrets of the endpoint sign already."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(endpoint_id)
        self.endpoint_id = endpoint_id


_LIVE: ColumnElement[bool] = or_(endpoint_secret.c.not_after.is_(None), endpoint_secret.c.not_after > func.now())


async def add(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    signing_key: str,
    box: SecretBox,
    *,
    now: datetime,
    sequence: int = 1,
) -> str:
    """Saves a signing key ("whsec_…" or "whsk_…"), sealed; returns the key that the receiver verifies with."""
    context = secret_context(organization_id, endpoint_id, sequence)
    await connection.execute(
        insert(endpoint_secret).values(
            organization_id=organization_id,
            endpoint_id=endpoint_id,
            sequence=sequence,
            kind=scheme_of(signing_key),
            ciphertext=box.seal(signing_key.encode(), context),
            key_id=box.key_id,
            create_time=now,
        )
    )
    return verification_key(signing_key)


async def rotate(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    scheme: Scheme | None,
    grace: timedelta,
    box: SecretBox,
    *,
    now: datetime,
) -> str:
    """Adds a new secret and ends the older ones after `grace`; returns the key that the receiver verifies with.

    scheme: None keeps that of the newest secret. The caller holds the lock of the endpoint's row. Raises
    TooManySecrets.
    """
    of_endpoint = (
        endpoint_secret.c.organization_id == organization_id,
        endpoint_secret.c.endpoint_id == endpoint_id,
    )
    newest = (
        await connection.execute(
            select(endpoint_secret.c.sequence, endpoint_secret.c.kind)
            .where(*of_endpoint)
            .order_by(endpoint_secret.c.sequence.desc())
            .limit(1)
        )
    ).one()
    if grace and await _live(connection, of_endpoint) >= MAX_LIVE:
        raise TooManySecrets(endpoint_id)
    await _end_all(connection, of_endpoint, grace)
    return await add(
        connection,
        organization_id,
        endpoint_id,
        new_signing_key(scheme or Scheme(newest.kind)),
        box,
        now=now,
        sequence=newest.sequence + 1,
    )


async def _live(connection: AsyncConnection, of_endpoint: Sequence[ColumnElement[bool]]) -> int:
    """How many secrets of an endpoint sign now."""
    live = await connection.scalar(select(func.count()).select_from(endpoint_secret).where(*of_endpoint, _LIVE))
    return live or 0


async def _end_all(connection: AsyncConnection, of_endpoint: Sequence[ColumnElement[bool]], grace: timedelta) -> None:
    """Ends the secrets of an endpoint after `grace`, and deletes those that have ended."""
    if not grace:
        await connection.execute(delete(endpoint_secret).where(*of_endpoint))
        return
    # By PostgreSQL's clock, like every time that notifiers compare.
    await connection.execute(
        update(endpoint_secret)
        .where(*of_endpoint, endpoint_secret.c.not_after.is_(None))
        .values(not_after=func.now() + grace)
    )
    await connection.execute(delete(endpoint_secret).where(*of_endpoint, ~_LIVE))


async def signing_keys(
    connection: AsyncConnection, organization_id: int, endpoint_ids: Sequence[str], box: SecretBox | None
) -> dict[str, list[SigningKey]]:
    """The secrets that sign now, by endpoint, the newest first."""
    rows = await connection.execute(
        select(endpoint_secret)
        .where(
            endpoint_secret.c.organization_id == organization_id,
            endpoint_secret.c.endpoint_id.in_(endpoint_ids),
            _LIVE,
        )
        .order_by(endpoint_secret.c.sequence.desc())
    )
    keys: dict[str, list[SigningKey]] = {}
    for row in rows:
        scheme = Scheme(row.kind)
        public_key = ""
        if scheme is Scheme.ED25519 and box is not None:
            context = secret_context(organization_id, row.endpoint_id, row.sequence)
            # The notifier logs a secret that cannot be opened. The rest of the answer does not need it.
            with contextlib.suppress(CannotOpen):
                public_key = verification_key(box.open(row.ciphertext, context).decode())
        keys.setdefault(row.endpoint_id, []).append(
            SigningKey(
                organization_id=organization_id,
                endpoint_id=row.endpoint_id,
                sequence=row.sequence,
                scheme=scheme,
                public_key=public_key,
                create_time=row.create_time,
                not_after=row.not_after,
            )
        )
    return keys


async def verification_key_of(
    connection: AsyncConnection, organization_id: int, endpoint_id: str, sequence: int, box: SecretBox
) -> str | None:
    """The key that receivers verify with; None when the secret does not sign any more, or cannot be opened."""
    sealed = await connection.scalar(
        select(endpoint_secret.c.ciphertext).where(
            endpoint_secret.c.organization_id == organization_id,
            endpoint_secret.c.endpoint_id == endpoint_id,
            endpoint_secret.c.sequence == sequence,
            _LIVE,
        )
    )
    if sealed is None:
        return None
    with contextlib.suppress(CannotOpen):
        return verification_key(box.open(sealed, secret_context(organization_id, endpoint_id, sequence)).decode())
    return None


async def reencrypt(
    connection: AsyncConnection, box: SecretBox, after: tuple[int, str, int], limit: int
) -> tuple[Counter[int], tuple[int, str, int] | None]:
    """Seals up to `limit` secrets of any organization with the current master key, unless it sealed them already.

    after: the key of the last row seen. Returns how many were sealed again, by organization, and the key of the last
    of them; None at the end. Raises CannotOpen.
    """
    key = tuple_(endpoint_secret.c.organization_id, endpoint_secret.c.endpoint_id, endpoint_secret.c.sequence)
    rows = (
        await connection.execute(
            select(endpoint_secret)
            .where(endpoint_secret.c.key_id.is_distinct_from(box.key_id), key > tuple_(*after))
            .order_by(endpoint_secret.c.organization_id, endpoint_secret.c.endpoint_id, endpoint_secret.c.sequence)
            .limit(limit)
            .with_for_update()
        )
    ).all()
    for row in rows:
        context = secret_context(row.organization_id, row.endpoint_id, row.sequence)
        plain = row.secret.encode() if row.ciphertext is None else box.open(row.ciphertext, context)
        await connection.execute(
            update(endpoint_secret)
            .where(
                endpoint_secret.c.organization_id == row.organization_id,
                endpoint_secret.c.endpoint_id == row.endpoint_id,
                endpoint_secret.c.sequence == row.sequence,
            )
            .values(secret=null(), ciphertext=box.seal(plain, context), key_id=box.key_id)
        )
    last = (rows[-1].organization_id, rows[-1].endpoint_id, rows[-1].sequence) if rows else None
    return Counter(row.organization_id for row in rows), last
