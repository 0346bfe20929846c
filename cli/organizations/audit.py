"""The audit log of the commands `tidemark keys …`, `quotas …` and `secrets …`: entries in their transactions."""

import os
import pwd
import socket
from collections.abc import Mapping
from datetime import datetime

from runtime.clock import SystemClock
from runtime.quotas import Quotas
from store.audit import json_states, writing
from store.audit.entries import Actor, ActorKind, Cause, Changed, NewEntry, ResourceType
from store.identity.keys import KeyRecord, get_key
from store.postgres.database import Connection, driver


class KeyAudit:
    """Records what one command does to keys of one organization."""

    def __init__(self, connection: Connection, organization_name: str, command: str) -> None:
        """connection: the transaction of the command. command: such as `create`."""
        self._connection = connection
        self._organization_name = organization_name
        self._cause = Cause(Actor(ActorKind.COMMAND_LINE, actor_id=user_and_host()), f"tidemark keys {command}")

    async def before(self, key_id: str) -> KeyRecord | None:
        """The key before its change, locked until the transaction ends; None if the organization has none."""
        return await get_key(self._connection, self._organization_name, key_id, locked=True)

    async def record(self, key_id: str, before: KeyRecord | None, now: datetime) -> None:
        """Records the change of a key, if it has changed. before: None for a new key."""
        after = await get_key(self._connection, self._organization_name, key_id)
        if after is None:
            return
        states = [None if one is None else _state(one) for one in (before, after)]
        if states[0] == states[1]:
            return
        changed = Changed(ResourceType.API_KEY, key_id, after.settings.customer_id, states[0], states[1])
        raw = await driver(self._connection)
        await writing.write(raw, after.organization.organization_id, [NewEntry(self._cause, changed)], now)


async def record_quotas(connection: Connection, organization_id: int, before: Quotas, after: Quotas) -> None:
    """Records the change of an organization's own quotas, if they have changed."""
    if before == after:
        return
    cause = Cause(Actor(ActorKind.COMMAND_LINE, actor_id=user_and_host()), "tidemark quotas set")
    states = json_states.quotas(before) if before else None, json_states.quotas(after) if after else None
    entry = NewEntry(cause, Changed(ResourceType.QUOTAS, "", "", *states))
    await writing.write(await driver(connection), organization_id, [entry], SystemClock().now())


async def record_reencryption(
    connection: Connection,
    *,
    signing_secrets: Mapping[int, int] | None = None,
    credentials: Mapping[int, int] | None = None,
) -> None:
    """Records how many stored secrets of endpoints have another master key now, by organization."""
    cause = Cause(Actor(ActorKind.COMMAND_LINE, actor_id=user_and_host()), "tidemark secrets reencrypt")
    signing_secrets, credentials = signing_secrets or {}, credentials or {}
    for organization_id in sorted({*signing_secrets, *credentials}):
        state = json_states.endpoint_secrets(
            signing_secrets=signing_secrets.get(organization_id, 0), credentials=credentials.get(organization_id, 0)
        )
        entry = NewEntry(cause, Changed(ResourceType.ENDPOINT_SECRETS, "", "", None, state))
        await writing.write(await driver(connection), organization_id, [entry], SystemClock().now())


def user_and_host() -> str:
    """The user of the operating system and the host on which the command runs, as ann@ops-1."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as a user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _state(record: KeyRecord) -> bytes:
    settings = record.settings
    return json_states.api_key(
        record.key_id,
        display_name=settings.display_name,
        roles=[role.value for role in settings.roles],
        customer_id=settings.customer_id,
        identity=record.identity,
        expire_time=settings.expire_time,
        revoke_time=record.revoke_time,
    )
