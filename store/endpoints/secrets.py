"""The secrets that an endpoint's attempts are signed with: made, replaced, ended, and sealed at rest."""

import base64
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import ColumnElement, delete, func, insert, null, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from store.tables.webhooks import endpoint_secret
from webhooks.secret_box import CannotOpen, SecretBox, secret_place
from webhooks.signature import PRIVATE_KEY_PREFIX, PUBLIC_KEY_PREFIX, SECRET_PREFIX, SEED_LENGTH

HMAC_BYTES = 32
MAX_LIVE = 5  # secrets of one endpoint that sign at a time


class Scheme(StrEnum):
    """How a secret signs, by the version that stands before its signatures."""

    HMAC_SHA256 = "v1"
    ED25519 = "v1a"


@dataclass(frozen=True)
class SigningKey:
    """What may be known of a secret that signs now."""

    organization_id: int
    endpoint_id: str
    sequence: int
    scheme: Scheme
    public_key: str  # "whpk_…"; empty for HMAC_SHA256, and where the secret cannot be opened
    create_time: datetime
    not_after: datetime | None  # unset: the newest one


class TooManySecrets(Exception):
    """The endpoint has the maximum number of secrets that sign."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(endpoint_id)
        self.endpoint_id = endpoint_id


_LIVE: ColumnElement[bool] = or_(endpoint_secret.c.not_after.is_(None), endpoint_secret.c.not_after > func.now())


def new_secret(scheme: Scheme) -> str:
    """The text form of a new secret: "whsec_…" or "whsk_…"."""
    if scheme is Scheme.HMAC_SHA256:
        return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(HMAC_BYTES)).decode()
    seed = secrets.token_bytes(SEED_LENGTH)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return PRIVATE_KEY_PREFIX + base64.b64encode(seed + public).decode()


def shown_secret(secret: str) -> str:
    """What the receiver verifies with: the secret itself, or its public key where it has one."""
    if not secret.startswith(PRIVATE_KEY_PREFIX):
        return secret
    pair = base64.b64decode(secret.removeprefix(PRIVATE_KEY_PREFIX))
    return PUBLIC_KEY_PREFIX + base64.b64encode(pair[SEED_LENGTH:]).decode()


async def add(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    scheme: Scheme,
    box: SecretBox,
    *,
    now: datetime,
    sequence: int = 1,
) -> str:
    """Saves a new secret, sealed; returns what the receiver verifies with."""
    secret = new_secret(scheme)
    place = secret_place(organization_id, endpoint_id, sequence)
    await connection.execute(
        insert(endpoint_secret).values(
            organization_id=organization_id,
            endpoint_id=endpoint_id,
            sequence=sequence,
            kind=scheme,
            ciphertext=box.seal(secret.encode(), place),
            key_id=box.key_id,
            create_time=now,
        )
    )
    return shown_secret(secret)


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
    """Puts a new secret in front, and ends the older ones after `grace`; returns what the receiver verifies with.

    None keeps the scheme. The caller holds the endpoint's row. Raises TooManySecrets.
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
    if grace:
        live = await connection.scalar(select(func.count()).select_from(endpoint_secret).where(*of_endpoint, _LIVE))
        if (live or 0) >= MAX_LIVE:
            raise TooManySecrets(endpoint_id)
        # PostgreSQL's clock, as for everything that the notifiers decide by.
        await connection.execute(
            update(endpoint_secret)
            .where(*of_endpoint, endpoint_secret.c.not_after.is_(None))
            .values(not_after=func.now() + grace)
        )
        await connection.execute(delete(endpoint_secret).where(*of_endpoint, ~_LIVE))
    else:
        await connection.execute(delete(endpoint_secret).where(*of_endpoint))
    return await add(
        connection,
        organization_id,
        endpoint_id,
        scheme or Scheme(newest.kind),
        box,
        now=now,
        sequence=newest.sequence + 1,
    )


async def signing_keys(
    connection: AsyncConnection, organization_id: int, endpoint_ids: Sequence[str], box: SecretBox | None
) -> dict[str, list[SigningKey]]:
    """The keys that sign now, by endpoint, the newest first."""
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
            place = secret_place(organization_id, row.endpoint_id, row.sequence)
            # Where it cannot be opened, the notifier says so; the rest can be shown all the same.
            with contextlib.suppress(CannotOpen):
                public_key = shown_secret(box.open(row.ciphertext, place).decode())
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


async def reencrypt(
    connection: AsyncConnection, box: SecretBox, after: tuple[int, str, int], limit: int
) -> tuple[int, tuple[int, str, int] | None]:
    """Seals up to `limit` secrets of any organization with the current key; those that it sealed are left alone.

    `after` is the key of the last row seen. Returns how many were sealed anew, and the key to go on after; None at
    the end. Raises CannotOpen.
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
        place = secret_place(row.organization_id, row.endpoint_id, row.sequence)
        plain = row.secret.encode() if row.ciphertext is None else box.open(row.ciphertext, place)
        await connection.execute(
            update(endpoint_secret)
            .where(
                endpoint_secret.c.organization_id == row.organization_id,
                endpoint_secret.c.endpoint_id == row.endpoint_id,
                endpoint_secret.c.sequence == row.sequence,
            )
            .values(secret=null(), ciphertext=box.seal(plain, place), key_id=box.key_id)
        )
    last = (rows[-1].organization_id, rows[-1].endpoint_id, rows[-1].sequence) if rows else None
    return len(rows), last
