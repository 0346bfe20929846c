"""Operator events as the API lists them, and test events, which are made on request."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, not_, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.alerts import ConditionType
from runtime.tracing.current import current_trace
from store.deliveries.redelivery import Redeliverable, make_due
from store.ids import random_id
from store.notifications.operator_events import NO_CUSTOMER
from store.tables.webhooks import operator_event
from webhooks.deliveries import Trigger
from webhooks.example_events import TEST_ID_PREFIX, TEST_TYPE, example_body


@dataclass(frozen=True)
class LoggedEvent:
    """A stored operator event. body: the JSON that is posted, byte for byte."""

    organization_id: int
    event_id: str
    event_type: str
    endpoint_id: str
    create_time: datetime
    body: str


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    *,
    endpoint_id: str | None,
    event_types: Sequence[str],
    after: tuple[datetime, str] | None,
    limit: int,
) -> list[LoggedEvent]:
    """Up to `limit` events, newest first; `after` is the create_time and id of the last one seen.

    Test events are left out unless their type is `endpoint.test`: the event that they show did not happen.
    """
    statement = (
        select(
            operator_event.c.organization_id,
            operator_event.c.event_id,
            operator_event.c.event_type,
            operator_event.c.endpoint_id,
            operator_event.c.create_time,
            operator_event.c.body,
        )
        .where(
            operator_event.c.organization_id == organization_id,
            or_(
                operator_event.c.event_type == TEST_TYPE,
                not_(operator_event.c.event_id.startswith(TEST_ID_PREFIX, autoescape=True)),
            ),
        )
        .order_by(operator_event.c.create_time.desc(), operator_event.c.event_id.desc())
        .limit(limit)
    )
    if endpoint_id is not None:
        statement = statement.where(operator_event.c.endpoint_id == endpoint_id)
    if event_types:
        statement = statement.where(operator_event.c.event_type.in_(event_types))
    if after is not None:
        key = tuple_(operator_event.c.create_time, operator_event.c.event_id)
        statement = statement.where(key < tuple_(*after))
    return [LoggedEvent(**row) for row in (await connection.execute(statement)).mappings()]


async def send_test(
    connection: AsyncConnection,
    organization_id: int,
    endpoint_id: str,
    event_type: str,
    condition: ConditionType | None = None,
    *,
    idempotency_key: str | None,
    now: datetime,
) -> str:
    """Makes a test event of one of EXAMPLE_TYPES and its delivery to one endpoint; returns the event's id.

    condition: of the alert of one of CONDITION_EVENT_TYPES; None: one of the usual types.

    The caller holds the lock of the endpoint's row, and the endpoint is enabled.
    """
    event_id, trace = random_id(TEST_ID_PREFIX), current_trace()
    await connection.execute(
        insert(operator_event).values(
            organization_id=organization_id,
            event_id=event_id,
            event_type=event_type,
            endpoint_id=endpoint_id,
            body=example_body(event_id, event_type, endpoint_id, now, condition),
            create_time=now,
            trace_context="" if trace is None else trace.stored,
        )
    )
    # Without an outbox row it goes to this endpoint only, whatever the endpoint's filters are. Without a customer and
    # a notification it appears in no history.
    event = Redeliverable(event_id, NO_CUSTOMER, event_type)
    await make_due(
        connection, organization_id, endpoint_id, [event], trigger=Trigger.TEST, idempotency_key=idempotency_key
    )
    return event_id
