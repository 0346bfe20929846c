"""Which class serves which RPC of the API, and what each class gets.

The methods of a service are bound methods of its parts, assigned when the server starts. So a call runs its handler
without a layer between, and mypy checks each handler against the contract.
"""

# mypy: disable-error-code="method-assign"

import functools
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from engine.facts.changes import FactChanges
from engine.voiding.voids import UsageVoids
from generated.envoy.service.auth.v3 import external_authorization_pb2, external_authorization_pb2_grpc
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
from runtime.configuration import Configuration
from runtime.quotas import QuotaKind
from server.accounts import errors as account_errors
from server.accounts.balance_series import BalanceSeriesHandlers
from server.accounts.balances import BalanceHandlers
from server.accounts.callers import CallerHandlers
from server.accounts.customers import CustomerHandlers
from server.accounts.erasures import ErasureHandlers
from server.accounts.invoices import InvoiceHandlers
from server.accounts.limits import LimitHandlers
from server.accounts.metrics import MetricHandlers
from server.accounts.plans import PlanHandlers
from server.accounts.quotas import QuotaHandlers
from server.accounts.recharge_policies import RechargePolicyHandlers
from server.accounts.recharges import RechargeHandlers
from server.accounts.subscriptions import SubscriptionHandlers
from server.alerts import errors as alert_errors
from server.alerts.activity import ActivityHandlers
from server.alerts.alerts import AlertHandlers
from server.alerts.batches import AlertBatchHandlers
from server.alerts.changes import AlertChangeHandlers
from server.alerts.customer_alerts import CustomerAlertHandlers
from server.alerts.exclusions import AlertExclusionHandlers
from server.alerts.explanations import ExplanationHandlers
from server.alerts.notifications import NotificationHandlers
from server.alerts.series import SeriesHandlers
from server.alerts.usage import UsageHandlers
from server.alerts.usage_requests import decode, decodes_natively
from server.alerts.usage_voids import UsageVoidHandlers
from server.audit import errors as audit_errors
from server.audit.entries import AuditEntryHandlers
from server.audit.streams import AuditStreamHandlers
from server.calls.errors import ErrorTable
from server.enforcement import errors as limit_errors
from server.enforcement.checks import CheckHandlers
from server.enforcement.deciding import Deciding
from server.enforcement.external_authorization import ExternalAuthorizationHandlers
from server.enforcement.reservation_views import ReservationViewHandlers
from server.enforcement.reservations import ReservationHandlers
from server.enforcement.streams import EnforcementStreamHandlers
from server.enforcement.watch_streams import WatchHandlers
from server.parts import Parts
from server.webhooks import errors as webhook_errors
from server.webhooks.deliveries import DeliveryHandlers
from server.webhooks.endpoints import EndpointHandlers
from server.webhooks.operator_events import OperatorEventHandlers
from server.webhooks.redelivery import RedeliveryHandlers
from server.webhooks.redelivery_jobs import RedeliveryJobHandlers
from server.webhooks.secret_box import secret_box
from webhooks.url_policy import UrlPolicy

ALERT_SERVICE = alert_service_pb2.DESCRIPTOR.services_by_name["AlertService"].full_name
ACCOUNT_SERVICE = account_service_pb2.DESCRIPTOR.services_by_name["AccountService"].full_name
LIMIT_SERVICE = limit_service_pb2.DESCRIPTOR.services_by_name["LimitService"].full_name
AUDIT_SERVICE = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name
EXTERNAL_AUTHORIZATION = external_authorization_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name
WEBHOOK_SERVICE = webhook_service_pb2.DESCRIPTOR.services_by_name["WebhookService"].full_name


class AlertService(alert_service_pb2_grpc.AlertServiceServicer):
    """tidemark.v1.AlertService: alerts, their state, usage, and notifications."""

    def __init__(self, parts: Parts) -> None:
        configuration, database, clock = parts.configuration, parts.database, parts.clock

        alerts = AlertHandlers(
            database,
            parts.changes,
            parts.backfills,
            parts.rules,
            most_examined=parts.limits.examined_alerts,
            max_alerts=parts.quotas.max_alerts,
        )
        self.CreateAlert = alerts.CreateAlert
        self.GetAlert = alerts.GetAlert
        self.ListAlerts = alerts.ListAlerts

        changes = AlertChangeHandlers(
            database, clock, parts.changes, parts.backfills, parts.evaluations, parts.transactions
        )
        self.UpdateAlert = changes.UpdateAlert
        self.EnableAlert = changes.EnableAlert
        self.DisableAlert = changes.DisableAlert
        self.ArchiveAlert = changes.ArchiveAlert
        self.ReleaseUniquenessKey = changes.ReleaseUniquenessKey
        self.ListAlertChanges = changes.ListAlertChanges
        self.ResetCustomerAlert = changes.ResetCustomerAlert

        batches = AlertBatchHandlers(clock, parts.changes, parts.backfills, parts.rules)
        self.BatchCreateAlerts = batches.BatchCreateAlerts
        self.BatchUpdateAlerts = batches.BatchUpdateAlerts
        self.BatchArchiveAlerts = batches.BatchArchiveAlerts

        customer_alerts = CustomerAlertHandlers(
            database, clock, page_gauges=parts.limits.page_gauges, most_examined=parts.limits.examined_alerts
        )
        self.GetCustomerAlert = customer_alerts.GetCustomerAlert
        self.ListCustomerAlerts = customer_alerts.ListCustomerAlerts
        self.SummarizeCustomerAlerts = customer_alerts.SummarizeCustomerAlerts

        explanations = ExplanationHandlers(
            database, clock, grace=configuration.grace, max_groups=parts.rules.max_groups
        )
        self.ExplainCustomerAlert = explanations.ExplainCustomerAlert
        self.PreviewAlert = explanations.PreviewAlert
        self.GetCustomerAlertSeries = SeriesHandlers(
            database, clock, grace=configuration.grace, max_groups=parts.rules.max_groups
        ).GetCustomerAlertSeries

        self.GetActivity = ActivityHandlers(database, clock).GetActivity

        self.ListAlertExclusions = AlertExclusionHandlers(database).ListAlertExclusions

        usage = UsageHandlers(
            configuration,
            database,
            clock,
            parts.pipeline,
            parts.drain,
            parts.quotas,
            max_stream_events=parts.limits.stream_events,
            monitoring=parts.monitoring.ingest,
        )
        self.EvaluateUsage = usage.EvaluateUsage
        self.EvaluateUsageBatch = usage.EvaluateUsageBatch

        usage_voids = UsageVoidHandlers(database, clock, UsageVoids(parts.transactions))
        self.VoidUsageEvents = usage_voids.VoidUsageEvents

        notifications = NotificationHandlers(
            database,
            parts.feeds,
            parts.drain,
            heartbeat=configuration.heartbeat,
            retention=configuration.notification_retention,
            page_bytes=parts.limits.notification_bytes,
        )
        self.GetNotification = notifications.GetNotification
        self.ListNotifications = notifications.ListNotifications
        self.WatchNotifications = notifications.WatchNotifications


class AccountService(account_service_pb2_grpc.AccountServiceServicer):
    """tidemark.v1.AccountService: the facts of the billing system."""

    def __init__(self, parts: Parts) -> None:
        database, clock = parts.database, parts.clock
        fact_changes = FactChanges(parts.transactions)

        customers = CustomerHandlers(database, clock, parts.puts.customers)
        self.PutCustomer = customers.PutCustomer
        self.GetCustomer = customers.GetCustomer
        self.ListCustomers = customers.ListCustomers

        erasures = ErasureHandlers(database, clock, parts.erasures)
        self.DeleteCustomer = erasures.DeleteCustomer
        self.GetErasureJob = erasures.GetErasureJob
        self.ListErasureJobs = erasures.ListErasureJobs

        subscriptions = SubscriptionHandlers(database, clock, parts.puts.subscriptions)
        self.PutSubscription = subscriptions.PutSubscription
        self.GetSubscription = subscriptions.GetSubscription
        self.ListSubscriptions = subscriptions.ListSubscriptions
        self.DeleteSubscription = subscriptions.DeleteSubscription

        metrics = MetricHandlers(database, clock, parts.puts.metrics, parts.new_metrics)
        self.PutMetric = metrics.PutMetric
        self.GetMetric = metrics.GetMetric
        self.ListMetrics = metrics.ListMetrics
        self.DeleteMetric = metrics.DeleteMetric

        plans = PlanHandlers(database, clock)
        self.PutPlan = plans.PutPlan
        self.GetPlan = plans.GetPlan
        self.ListPlans = plans.ListPlans
        self.DeletePlan = plans.DeletePlan

        limits = LimitHandlers(database, clock, parts.puts, parts.backfills)
        self.PutLimit = limits.PutLimit
        self.GetLimit = limits.GetLimit
        self.ListLimits = limits.ListLimits
        self.DeleteLimit = limits.DeleteLimit

        self.GetQuotas = QuotaHandlers(database, parts.quotas).GetQuotas
        self.GetCaller = CallerHandlers().GetCaller

        balances = BalanceHandlers(database, clock, fact_changes)
        self.PutBalance = balances.PutBalance
        self.GetBalance = balances.GetBalance
        self.GetBalanceSeries = BalanceSeriesHandlers(database, clock).GetBalanceSeries
        self.ListBalances = balances.ListBalances
        self.AdjustBalance = balances.AdjustBalance
        self.DecrementBalances = balances.DecrementBalances
        self.VoidBalance = balances.VoidBalance
        self.ListBalanceEntries = balances.ListBalanceEntries
        self.ListOverages = balances.ListOverages

        recharge_policies = RechargePolicyHandlers(database, clock, fact_changes)
        self.PutRechargePolicy = recharge_policies.PutRechargePolicy
        self.GetRechargePolicy = recharge_policies.GetRechargePolicy
        self.ListRechargePolicies = recharge_policies.ListRechargePolicies
        self.DeleteRechargePolicy = recharge_policies.DeleteRechargePolicy
        self.EnableRechargePolicy = recharge_policies.EnableRechargePolicy

        recharges = RechargeHandlers(database, clock, fact_changes)
        self.GetRecharge = recharges.GetRecharge
        self.ListRecharges = recharges.ListRecharges
        self.ReportRecharge = recharges.ReportRecharge

        invoices = InvoiceHandlers(database, clock, fact_changes)
        self.PutInvoice = invoices.PutInvoice
        self.GetInvoice = invoices.GetInvoice
        self.ListInvoices = invoices.ListInvoices


class AuditService(audit_service_pb2_grpc.AuditServiceServicer):
    """tidemark.v1.AuditService: the audit log."""

    def __init__(self, parts: Parts) -> None:
        configuration, database = parts.configuration, parts.database

        entries = AuditEntryHandlers(
            database, retention=configuration.audit_retention, most_examined=parts.limits.examined_audit_entries
        )
        self.GetAuditEntry = entries.GetAuditEntry
        self.ListAuditEntries = entries.ListAuditEntries

        streams = AuditStreamHandlers(database, parts.audit_logs, parts.drain, heartbeat=configuration.heartbeat)
        self.WatchAuditEntries = streams.WatchAuditEntries


class LimitService(limit_service_pb2_grpc.LimitServiceServicer):
    """tidemark.v1.LimitService: decisions about usage before it happens, and reservations."""

    def __init__(self, parts: Parts) -> None:
        configuration, clock = parts.configuration, parts.clock

        checks = CheckHandlers(
            clock, parts.checks, retention=configuration.retention, monitoring=parts.monitoring.checks
        )
        self.CheckUsage = checks.CheckUsage
        self.BatchCheckUsage = checks.BatchCheckUsage

        deciding = Deciding(parts.enforcement, parts.checks, parts.quotas)
        reservations = ReservationHandlers(clock, deciding, retention=configuration.retention)
        self.ReserveUsage = reservations.ReserveUsage
        self.SettleReservation = reservations.SettleReservation
        self.ReleaseReservation = reservations.ReleaseReservation
        self.ExtendReservation = reservations.ExtendReservation

        views = ReservationViewHandlers(parts.database)
        self.GetReservation = views.GetReservation
        self.ListReservations = views.ListReservations

        streams = EnforcementStreamHandlers(
            clock,
            deciding,
            parts.drain,
            heartbeat=configuration.heartbeat,
            retention=configuration.retention,
            max_stream_requests=parts.limits.stream_events,
        )
        self.EnforceUsage = streams.EnforceUsage

        watches = WatchHandlers(parts.decision_watch, parts.drain, heartbeat=configuration.heartbeat)
        self.WatchDecisions = watches.WatchDecisions


class Authorization(external_authorization_pb2_grpc.AuthorizationServicer):
    """envoy.service.auth.v3.Authorization: decisions of LimitService about requests that Envoy forwards."""

    def __init__(self, parts: Parts) -> None:
        configuration, clock = parts.configuration, parts.clock

        checks = CheckHandlers(
            clock, parts.checks, retention=configuration.retention, monitoring=parts.monitoring.checks
        )
        reservations = ReservationHandlers(
            clock, Deciding(parts.enforcement, parts.checks, parts.quotas), retention=configuration.retention
        )
        self.Check = ExternalAuthorizationHandlers(checks, reservations).Check


class WebhookService(webhook_service_pb2_grpc.WebhookServiceServicer):
    """tidemark.v1.WebhookService: endpoints, deliveries, and redelivery."""

    def __init__(self, parts: Parts) -> None:
        configuration, database, clock = parts.configuration, parts.database, parts.clock

        policy = UrlPolicy(configuration.webhook_allow_http, configuration.webhook_allow_networks)
        endpoints = EndpointHandlers(
            database,
            clock,
            policy,
            secret_box(configuration),
            lambda organization_id: parts.quotas.limit(organization_id, QuotaKind.ENDPOINTS),
        )
        self.CreateEndpoint = endpoints.CreateEndpoint
        self.GetEndpoint = endpoints.GetEndpoint
        self.ListEndpoints = endpoints.ListEndpoints
        self.UpdateEndpoint = endpoints.UpdateEndpoint
        self.EnableEndpoint = endpoints.EnableEndpoint
        self.DisableEndpoint = endpoints.DisableEndpoint
        self.RotateSecret = endpoints.RotateSecret
        self.DeleteEndpoint = endpoints.DeleteEndpoint

        deliveries = DeliveryHandlers(database, parts.limits.counted_deliveries)
        self.ListDeliveries = deliveries.ListDeliveries
        self.GetDelivery = deliveries.GetDelivery
        self.ListAttempts = deliveries.ListAttempts

        redelivery = RedeliveryHandlers(database, clock, parts.redeliveries, configuration.delivery_retention)
        self.SendTestEvent = redelivery.SendTestEvent
        self.RedeliverNotification = redelivery.RedeliverNotification
        self.RedeliverDeliveries = redelivery.RedeliverDeliveries
        self.RecoverEndpoint = redelivery.RecoverEndpoint

        jobs = RedeliveryJobHandlers(database)
        self.GetRedeliveryJob = jobs.GetRedeliveryJob
        self.ListRedeliveryJobs = jobs.ListRedeliveryJobs

        operator_events = OperatorEventHandlers(database)
        self.ListOperatorEvents = operator_events.ListOperatorEvents


def error_tables(configuration: Configuration) -> Mapping[str, ErrorTable]:
    """The table from exceptions of the domain to API errors, for each service."""
    return {
        ALERT_SERVICE: alert_errors.error_table(configuration.notification_retention),
        ACCOUNT_SERVICE: account_errors.error_table(),
        AUDIT_SERVICE: audit_errors.error_table(configuration.audit_retention),
        LIMIT_SERVICE: limit_errors.error_table(),
        EXTERNAL_AUTHORIZATION: limit_errors.error_table(),
        WEBHOOK_SERVICE: webhook_errors.error_table(),
    }


def decoders(configuration: Configuration) -> Mapping[str, Callable[[bytes], Any]]:
    """The decoders of requests that are not decoded by protobuf alone, by method."""
    kinds: Mapping[str, Any] = {
        "EvaluateUsage": alert_service_pb2.EvaluateUsageRequest,
        "EvaluateUsageBatch": alert_service_pb2.EvaluateUsageBatchRequest,
    }
    native, most = decodes_natively(configuration), configuration.max_batch_events
    return {
        f"/{ALERT_SERVICE}/{name}": functools.partial(decode, kind, native=native, most=most)
        for name, kind in kinds.items()
    }


def register(server: grpc.aio.Server, parts: Parts) -> tuple[str, ...]:
    """Adds every service of the API to the server; returns their full names."""
    # mypy does not see that __init__ defines the methods; tests/unit/server/test_services.py checks each of them.
    alerts = AlertService(parts)  # type: ignore[abstract]
    accounts = AccountService(parts)  # type: ignore[abstract]
    audit = AuditService(parts)  # type: ignore[abstract]
    limits = LimitService(parts)  # type: ignore[abstract]
    authorization = Authorization(parts)  # type: ignore[abstract]
    webhooks = WebhookService(parts)  # type: ignore[abstract]
    alert_service_pb2_grpc.add_AlertServiceServicer_to_server(alerts, server)
    account_service_pb2_grpc.add_AccountServiceServicer_to_server(accounts, server)
    audit_service_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)
    limit_service_pb2_grpc.add_LimitServiceServicer_to_server(limits, server)
    external_authorization_pb2_grpc.add_AuthorizationServicer_to_server(authorization, server)
    webhook_service_pb2_grpc.add_WebhookServiceServicer_to_server(webhooks, server)
    return ACCOUNT_SERVICE, ALERT_SERVICE, AUDIT_SERVICE, LIMIT_SERVICE, EXTERNAL_AUTHORIZATION, WEBHOOK_SERVICE
