"""Where the notifications of an alert and a customer went: deliveries with their attempts, and the endpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.explanation.findings import ExplainedGauge
from evaluator.definitions import AlertDefinition
from evaluator.notifications import REACHED_TYPE, notification_id_of
from store.deliveries import deliveries, outbox
from store.deliveries.deliveries import Attempt, Delivery
from store.endpoints import endpoints
from store.endpoints.endpoints import MAX_ENDPOINTS, EndpointFilter
from store.endpoints.rows import Endpoint, EndpointState
from store.identity.organizations import Organization
from store.notifications import history
from store.notifications.feed import FeedEntry, NotificationFilter
from store.postgres.database import Connection

MAX_NOTIFICATIONS = 10  # of one explanation
MAX_DELIVERIES = 100  # of these notifications
MAX_ATTEMPTS = 3  # of one delivery
LATEST_OF_GAUGE = 3  # notifications of each gauge that are read by their ids
EXAMINED = 1_000  # of the customer's latest notifications


class EndpointOutcome(StrEnum):
    """Whether an endpoint gets a notification, and why not."""

    SENT = "SENT"
    DISABLED = "DISABLED"
    OTHER_EVENT_TYPES = "OTHER_EVENT_TYPES"
    OTHER_CONDITION_TYPES = "OTHER_CONDITION_TYPES"


@dataclass(frozen=True)
class SentNotification:
    """A notification with its deliveries. awaits_fan_out: the notifier has not made them yet."""

    entry: FeedEntry
    deliveries: Sequence[Delivery] = ()
    awaits_fan_out: bool = False


@dataclass(frozen=True)
class Whereabouts:
    """The latest notifications, newest first; the attempts by delivery id; the endpoints with their outcomes."""

    notifications: Sequence[SentNotification] = ()
    attempts: Mapping[str, Sequence[Attempt]] = field(default_factory=dict)
    endpoints: Sequence[tuple[Endpoint, EndpointOutcome]] = ()


def outcome_of(endpoint: Endpoint, event_type: str, condition_type: str) -> EndpointOutcome:
    """Whether the fan-out makes a delivery for the endpoint."""
    if endpoint.state is not EndpointState.ENABLED:
        return EndpointOutcome.DISABLED
    if outbox.wants(endpoint, event_type, condition_type):
        return EndpointOutcome.SENT
    if endpoint.event_types and event_type not in endpoint.event_types:
        return EndpointOutcome.OTHER_EVENT_TYPES
    return EndpointOutcome.OTHER_CONDITION_TYPES


async def find_notifications(
    connection: Connection,
    organization: Organization,
    definition: AlertDefinition,
    customer_id: str,
    gauges: Sequence[ExplainedGauge],
) -> list[FeedEntry]:
    """The latest notifications of an alert about a customer, the newest first.

    Those of the gauges are found by their ids, which follow from their numbers; those of other gauges are found among
    the latest notifications of the customer.
    """
    ids = [
        notification_id_of(organization.name, definition.alert_id, one.gauge.gauge_id, number)
        for one in gauges
        for number in range(max(one.sequence - LATEST_OF_GAUGE, 0) + 1, one.sequence + 1)
    ]
    wanted = NotificationFilter(customer_ids=(customer_id,), alert_ids=(definition.alert_id,))
    of_gauges = await history.with_ids(connection, organization.organization_id, customer_id, ids) if ids else []
    page = await history.list_page(
        connection, organization.organization_id, wanted, limit=MAX_NOTIFICATIONS, most_examined=EXAMINED
    )
    found = {one.notification_id: one for one in (*page.items, *of_gauges)}
    newest = sorted(found.values(), key=lambda one: (one.create_time, one.sequence), reverse=True)
    return newest[:MAX_NOTIFICATIONS]


async def find_deliveries(
    connection: Connection, organization_id: int, definition: AlertDefinition, entries: Sequence[FeedEntry]
) -> Whereabouts:
    """The deliveries of notifications, and the endpoints of the organization."""
    every = await endpoints.list_page(connection, organization_id, EndpointFilter(), after=None, limit=MAX_ENDPOINTS)
    condition_type = definition.condition.condition_type.value
    made: list[Delivery] = []
    if entries:
        ids = [one.notification_id for one in entries]
        made = await deliveries.of_notifications(connection, organization_id, ids, limit=MAX_DELIVERIES)
    attempts = await deliveries.latest_of_each(connection, organization_id, made, each=MAX_ATTEMPTS)
    oldest_waiting = await outbox.oldest_time(connection)
    sent = []
    for entry in entries:
        own = [one for one in made if one.notification_id == entry.notification_id]
        wanted = any(
            one.create_time <= entry.create_time
            and outcome_of(one, entry.event_type, entry.condition_type) is EndpointOutcome.SENT
            for one in every
        )
        awaits = not own and wanted and oldest_waiting is not None and oldest_waiting <= entry.create_time
        sent.append(SentNotification(entry, own, awaits))
    outcomes = [(one, outcome_of(one, REACHED_TYPE, condition_type)) for one in every]
    return Whereabouts(sent, attempts, outcomes)
