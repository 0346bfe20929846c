"""Carries out `steps.py` for one organization, alone or beside a second one, and keeps every answer."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from string import Template as Text
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf import message_factory, text_format
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from psycopg import sql

import engine.recharges.evaluating
import evaluator.recharges
import store.alerts.drafts
import store.deliveries.operator_event_log
import store.deliveries.redelivery_jobs
import store.endpoints.endpoints
import store.erasures.jobs
import store.notifications.operator_events
import store.recharges.policies
from engine.limits import ChangeLimits, EngineLimits
from evaluator.notifications import Notification
from generated.tidemark.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    alert_service_pb2,
    alert_service_pb2_grpc,
    audit_service_pb2,
    audit_service_pb2_grpc,
    limit_service_pb2,
    limit_service_pb2_grpc,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from generated.tidemark.v1.alert_service_pb2 import ListNotificationsResponse
from runtime.clock import Clock
from store.audit import numbering
from store.identity import keys
from store.notifications import feed
from store.notifications.placing import assign_positions
from store.postgres.database import Database
from tests.support.organizations.step import OURS, THEIRS, Step
from tests.support.organizations.steps import STEPS
from tests.support.server.running import Running, reason_of, running
from tests.support.usage.caller import until

ONE_SPEND_ALERT = EngineLimits(changes=ChangeLimits(spend_alerts=1))
PAGE_SIZE = 5
MAX_PAGES = 50

# Numbers of a sequence that organizations share, random values, and times of the database's own clock.
_VARIES = re.compile(
    r'(entry_number|change_number): \d+|(secret|next_page_token|public_key|key_id): "[^"]*"'
    r"|(\w+_time|circuit_\w+) \{[^}]*\}"
)
_ONLY_NUMBERS = re.compile(
    r'(entry_number|change_number): \d+|(secret|next_page_token|public_key|key_id): "[^"]*"|oldest_due_time \{[^}]*\}'
)
# What differs from call to call of the audit log.
_OF_CALLS = re.compile(r'entry_number: \d+|(next_page_token|actor_id|peer|request_id): "[^"]*"')

_SERVICES: Sequence[tuple[Any, Any]] = (
    (account_service_pb2, account_service_pb2_grpc.AccountServiceStub),
    (alert_service_pb2, alert_service_pb2_grpc.AlertServiceStub),
    (audit_service_pb2, audit_service_pb2_grpc.AuditServiceStub),
    (limit_service_pb2, limit_service_pb2_grpc.LimitServiceStub),
    (webhook_service_pb2, webhook_service_pb2_grpc.WebhookServiceStub),
)


@dataclass
class Outcome:
    """answers: ours, by step. touched: by step of ours, the rows of the other organization that changed."""

    answers: dict[str, str] = field(default_factory=dict)
    touched: dict[str, list[str]] = field(default_factory=dict)


class Names:
    """Ids as the current step names them, the same for every organization."""

    def __init__(self) -> None:
        self.step = ""

    def __call__(self, prefix: str) -> str:
        return prefix + self.step


class StepCaller:
    """One organization's calls."""

    def __init__(self, server: Running, key: str, words: Mapping[str, str], names: Names) -> None:
        self._server = server
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._words = {**words, "notification": "none"}
        self._names = names

    async def call(self, step: Step) -> str:
        """The answer to a step with all pages that follow, or the refusal; without what varies from run to run."""
        self._names.step = step.name
        for module, stub in _SERVICES:
            [service] = module.DESCRIPTOR.services_by_name.values()
            if step.method in service.methods_by_name:
                return await self._call(step, service, getattr(stub(self._server.channel), step.method))
        raise AssertionError(f"there is no method {step.method}")

    async def _call(self, step: Step, service: ServiceDescriptor, method: Any) -> str:
        request = message_factory.GetMessageClass(service.methods_by_name[step.method].input_type)()
        text_format.Parse(Text(step.request).substitute(self._words), request)
        if "page_size" in request.DESCRIPTOR.fields_by_name:
            request.page_size = PAGE_SIZE  # type: ignore[attr-defined]
        pattern = {"WebhookService": _VARIES, "AuditService": _OF_CALLS}.get(service.name, _ONLY_NUMBERS)
        pages: list[str] = []
        for _ in range(MAX_PAGES):
            answer = await self._answer(method, request)
            pages.append(answer if isinstance(answer, str) else pattern.sub("", str(answer)))
            if isinstance(answer, ListNotificationsResponse) and answer.notifications:
                self._words["notification"] = answer.notifications[-1].notification_id
            if isinstance(answer, str) or not (token := getattr(answer, "next_page_token", "")):
                return "\n".join(pages)
            request.page_token = token  # type: ignore[attr-defined]
        raise AssertionError(f"{step.name} has no end")

    async def _answer(self, method: Any, request: Message) -> Any:
        try:
            return await method(request, metadata=self._metadata, timeout=30)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {reason_of(error)}: {error.details()}"


@contextmanager
def known_ids() -> Iterator[Names]:
    """Inside the block, the ids that the service generates are those of the steps."""
    names = Names()
    with pytest.MonkeyPatch.context() as patch:
        for module in (
            store.alerts.drafts,
            store.endpoints.endpoints,
            store.deliveries.operator_event_log,
            store.notifications.operator_events,
            store.deliveries.redelivery_jobs,
            store.erasures.jobs,
            store.recharges.policies,
        ):
            patch.setattr(module, "random_id", names)
        for module in (evaluator.recharges, engine.recharges.evaluating):
            patch.setattr(module, "recharge_id_of", lambda _, policy_id, number: f"rch_{policy_id}_{number}")
        # As if two organizations had one name.
        patch.setattr(
            Notification,
            "notification_id",
            property(lambda self: f"ntf_{self.alert_id}_{self.gauge_id.hex}_{self.sequence}"),
        )
        yield names


async def carry_out(database_url: str, clock: Clock, *, beside_another: bool) -> Outcome:
    """Carries out our steps. beside_another: a second organization takes each step first."""
    outcome = Outcome()
    with known_ids() as names:
        database = Database(database_url)
        async with database.transaction() as connection:
            # Theirs first: a statement that finds rows of both, in the order of a key, finds theirs first.
            theirs = await keys.create_key(connection, "theirs", clock.now())
            ours = await keys.create_key(connection, "ours", clock.now())
        async with (
            running(database, clock, engine_limits=ONE_SPEND_ALERT) as server,
            await psycopg.AsyncConnection.connect(database_url, autocommit=True) as observer,
        ):
            us = StepCaller(server, ours.key, OURS, names)
            them = StepCaller(server, theirs.key, THEIRS, names)
            for step in STEPS:
                before: list[str] = []
                if beside_another and step.only != "ours":
                    await them.call(step)
                if beside_another and step.writes:
                    await settled(observer, database)
                    before = await rows_of(observer, theirs.organization.organization_id)
                if step.only == "theirs":
                    continue
                outcome.answers[step.name] = await us.call(step)
                if step.writes:
                    await settled(observer, database)
                if beside_another and step.writes:
                    after = await rows_of(observer, theirs.organization.organization_id)
                    outcome.touched[step.name] = sorted(set(before) ^ set(after))
        await database.close()
    return outcome


async def settled(observer: psycopg.AsyncConnection[Any], database: Database) -> None:
    """Waits until the background tasks of the server have finished the work of the last step.

    It gives notifications their positions in the feeds, and entries their numbers in the audit logs, itself: the
    server's sweeps do so every 30 s, in the middle of any step.
    """

    async def nothing_is_left() -> bool:
        found = await observer.execute(
            "SELECT (SELECT count(*) FROM alert WHERE visit_after IS NOT NULL)"
            " + (SELECT count(*) FROM redelivery_job WHERE state = 'RUNNING')"
            " + (SELECT count(*) FROM erasure_job WHERE state = 'RUNNING')"
        )
        row = await found.fetchone()
        assert row is not None
        return int(row[0]) == 0

    await until(nothing_is_left)
    pending = True
    while pending:  # on a cluster, a later transaction deletes what is pending no more
        async with database.transaction() as connection:
            pending = bool(organizations := sorted(await feed.with_pending_entries(connection)))
            for organization_id in organizations:
                await assign_positions(connection, organization_id)
    async with database.transaction() as connection:
        for organization_id in await numbering.with_pending(connection):
            while await numbering.assign_numbers(connection, organization_id):
                pass


async def rows_of(observer: psycopg.AsyncConnection[Any], organization_id: int | None = None) -> list[str]:
    """Every row of an organization, of every table that has organizations; without one, every row of every table.

    Without the heartbeat of the processes, which they write at any time.
    """
    found = await observer.execute(
        "SELECT c.relname, EXISTS (SELECT FROM pg_attribute a"
        "  WHERE a.attrelid = c.oid AND a.attname = 'organization_id')"
        " FROM pg_class c"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND c.relname <> 'heartbeat'"
    )
    tables = [name for name, has_organizations in await found.fetchall() if has_organizations or not organization_id]
    assert len(tables) > 30
    of_organization = sql.SQL("WHERE organization_id = {id}").format(id=sql.Literal(organization_id))
    query = sql.SQL(" UNION ALL ").join(
        sql.SQL("SELECT {name} || t::text FROM {table} t {where}").format(
            name=sql.Literal(f"{table} "),
            table=sql.Identifier(table),
            where=of_organization if organization_id else sql.SQL(""),
        )
        for table in tables
    )
    return [row[0] for row in await (await observer.execute(query)).fetchall()]
