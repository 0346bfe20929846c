"""Which services this server has, and what their handlers are given."""

import logging
from dataclasses import dataclass

import grpc

from engine.facts.changes import FactChanges
from engine.ingest.pipeline import Pipeline
from engine.jobs import RedeliveryJobs
from engine.visits.visits import Visits
from generated.tidemark.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    alert_service_pb2,
    alert_service_pb2_grpc,
    webhook_service_pb2,
    webhook_service_pb2_grpc,
)
from runtime.clock import Clock
from runtime.configuration import Configuration
from server.accounts.balances import BalanceHandlers
from server.accounts.customers import CustomerHandlers
from server.accounts.invoices import InvoiceHandlers
from server.accounts.limits import LimitHandlers
from server.accounts.metrics import MetricHandlers
from server.accounts.plans import PlanHandlers
from server.accounts.subscriptions import SubscriptionHandlers
from server.alerts.changes import AlertChangeHandlers
from server.alerts.notifications import NotificationHandlers
from server.alerts.service import AlertHandlers
from server.alerts.usage import UsageHandlers
from server.alerts.watching.feeds import Feeds
from server.calls.lifecycle import Drain
from server.webhooks.service import WebhookService
from store.postgres.database import Database
from webhooks.secret_box import SecretBox, box_of
from webhooks.url_policy import UrlPolicy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dependencies:
    """What handlers work with; one of each in a process."""

    configuration: Configuration
    database: Database
    clock: Clock
    drain: Drain
    pipeline: Pipeline
    visits: Visits
    redeliveries: RedeliveryJobs
    feeds: Feeds


class AccountService(
    CustomerHandlers,
    SubscriptionHandlers,
    MetricHandlers,
    InvoiceHandlers,
    BalanceHandlers,
    PlanHandlers,
    LimitHandlers,
    account_service_pb2_grpc.AccountServiceServicer,
):
    """tidemark.v1.AccountService: the facts about those who are billed."""


class AlertService(
    AlertHandlers,
    AlertChangeHandlers,
    UsageHandlers,
    NotificationHandlers,
    alert_service_pb2_grpc.AlertServiceServicer,
):
    """tidemark.v1.AlertService: what defines alerts, what takes usage, and what tells of notifications."""

    def __init__(self, dependencies: Dependencies) -> None:
        AlertHandlers.__init__(self, dependencies.database, dependencies.clock, dependencies.visits)
        AlertChangeHandlers.__init__(
            self,
            dependencies.database,
            dependencies.clock,
            dependencies.visits,
            dependencies.configuration.grace,
        )
        UsageHandlers.__init__(
            self, dependencies.configuration, dependencies.clock, dependencies.pipeline, dependencies.drain
        )
        NotificationHandlers.__init__(
            self,
            dependencies.database,
            dependencies.feeds,
            dependencies.drain,
            heartbeat=dependencies.configuration.heartbeat,
            retention=dependencies.configuration.notification_retention,
        )


def _secret_box(configuration: Configuration) -> SecretBox | None:
    """The box that secrets are sealed with; None, and a word in the log, where no key is given for it."""
    embedded = configuration.database_url is None
    box = box_of(configuration.secret_keys, configuration.data_directory if embedded else None)
    if box is None:
        logger.warning(
            "no endpoint can be created: set TIDEMARK_SECRET_KEYS, which webhook secrets are encrypted with",
            extra={"action": "secrets.no_key"},
        )
    return box


def register(server: grpc.aio.Server, dependencies: Dependencies) -> tuple[str, ...]:
    """Adds every service of the API to the server; returns their full names."""
    account_service_pb2_grpc.add_AccountServiceServicer_to_server(
        AccountService(
            dependencies.database,
            dependencies.clock,
            FactChanges(dependencies.database, dependencies.clock, dependencies.configuration.grace),
            dependencies.visits,
        ),
        server,
    )
    alert_service_pb2_grpc.add_AlertServiceServicer_to_server(AlertService(dependencies), server)
    configuration = dependencies.configuration
    policy = UrlPolicy(configuration.webhook_allow_http, configuration.webhook_allow_networks)
    webhook_service_pb2_grpc.add_WebhookServiceServicer_to_server(
        WebhookService(
            dependencies.database,
            dependencies.clock,
            policy,
            _secret_box(configuration),
            dependencies.redeliveries,
            configuration.delivery_retention,
        ),
        server,
    )
    return tuple(
        module.DESCRIPTOR.services_by_name[name].full_name
        for module, name in (
            (account_service_pb2, "AccountService"),
            (alert_service_pb2, "AlertService"),
            (webhook_service_pb2, "WebhookService"),
        )
    )
