"""Callers of the API whose changes the audit log records, and the log as they read it."""

from dataclasses import dataclass
from typing import Any

from generated.tidemark.v1 import (
    account_service_pb2_grpc,
    alert_service_pb2_grpc,
    audit_service_pb2_grpc,
    webhook_service_pb2_grpc,
)
from generated.tidemark.v1.audit_entry_pb2 import AuditEntry
from generated.tidemark.v1.audit_service_pb2 import ListAuditEntriesRequest
from runtime.clock import Clock
from store.identity import keys
from store.identity.keys import CreatedKey, KeySettings
from store.postgres.database import Database
from tests.support.server.running import Running


class Service:
    """A stub whose calls carry the metadata of one caller."""

    def __init__(self, stub: Any, caller: "AuditedCaller") -> None:
        self._stub = stub
        self._caller = caller

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stub, name)

        def call(request: Any, **more: Any) -> Any:
            return method(request, metadata=(*self._caller.metadata, *more.pop("metadata", ())), timeout=60, **more)

        return call


class AuditedCaller:
    """The caller with one key."""

    def __init__(self, server: Running, key: CreatedKey) -> None:
        self.key = key
        self.metadata = (("authorization", f"Bearer {key.key}"),)
        channel: Any = server.channel
        self.accounts = Service(account_service_pb2_grpc.AccountServiceStub(channel), self)
        self.alerts = Service(alert_service_pb2_grpc.AlertServiceStub(channel), self)
        self.webhooks = Service(webhook_service_pb2_grpc.WebhookServiceStub(channel), self)
        self.audit = Service(audit_service_pb2_grpc.AuditServiceStub(channel), self)

    @property
    def organization_id(self) -> int:
        """The organization of the caller."""
        return self.key.organization.organization_id

    async def entries(self, **filters: Any) -> list[AuditEntry]:
        """All entries that pass the filters, the oldest first, over small pages."""
        found, token = list[AuditEntry](), ""
        while True:
            request = ListAuditEntriesRequest(page_size=7, page_token=token, **filters)
            answer = await self.audit.ListAuditEntries(request)
            found += answer.entries
            if not (token := answer.next_page_token):
                return found[::-1]


@dataclass
class AuditedApi:
    """A server, and callers of two organizations. Both can do everything."""

    server: Running
    database: Database
    clock: Clock
    ours: AuditedCaller
    theirs: AuditedCaller

    @classmethod
    async def open(cls, server: Running, database: Database, clock: Clock) -> "AuditedApi":
        """Creates the keys of both."""
        made = []
        for name in ("ours", "theirs"):
            async with database.transaction() as connection:
                settings = KeySettings(display_name=f"key of {name}")
                made.append(await keys.create_key(connection, name, clock.now(), settings))
        ours, theirs = (AuditedCaller(server, key) for key in made)
        return cls(server, database, clock, ours, theirs)

    async def another_key(self, display_name: str) -> AuditedCaller:
        """Another caller of our organization."""
        async with self.database.transaction() as connection:
            settings = KeySettings(display_name=display_name)
            key = await keys.create_key(connection, "ours", self.clock.now(), settings)
        return AuditedCaller(self.server, key)
