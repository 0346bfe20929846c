"""Endpoints, deliveries, attempts, jobs and operator events: the resources of WebhookService."""

from cli.resources.tables import texts
from cli.resources.tables.model import Column, Form, Resource, Verb

_ENDPOINT = (
    Column("id", "endpoint_id", Form.ID),
    Column("url", "url"),
    Column("name", "display_name", rank=2),
    Column("state", "state", Form.STATE),
    Column("event types", "event_types", Form.LIST, rank=3),
    Column("failing since", "health.failing_since_time", Form.TIME, rank=1),
    Column("last success", "health.last_success_time", Form.TIME, rank=2),
)
_DELIVERY = (
    Column("id", "delivery_id", Form.ID),
    Column("created", "create_time", Form.TIME),
    Column("status", "status", Form.STATE),
    Column("type", "event_type", Form.STATE),
    Column("attempts", "attempt_count", Form.NUMBER),
    Column("next", "next_attempt_time", Form.TIME, rank=1),
    Column("customer", "customer_id", Form.ID, rank=2),
    Column("endpoint", "endpoint_id", Form.ID, rank=3),
    Column("notification", "notification_id", Form.ID, rank=4),
)
_ATTEMPT = (
    Column("number", "attempt_number", Form.NUMBER),
    Column("time", "start_time", Form.TIME),
    Column("outcome", "outcome", Form.STATE),
    Column("http", "http_status", Form.NUMBER),
    Column("took", texts.took, Form.NUMBER),
    Column("answer", lambda attempt: " ".join((attempt.error or attempt.response_excerpt).split()), rank=1),
    Column("address", "remote_address", rank=2),
)
_JOB = (
    Column("id", "job_id", Form.ID),
    Column("endpoint", "endpoint_id", Form.ID),
    Column("kind", "kind", Form.STATE, rank=1),
    Column("state", "state", Form.STATE),
    Column("examined", "examined_count", Form.NUMBER, rank=2),
    Column("redelivered", "redelivered_count", Form.NUMBER),
    Column("created", "create_time", Form.TIME),
)
_EVENT = (
    Column("id", "event_id", Form.ID),
    Column("time", "create_time", Form.TIME),
    Column("type", "event_type", Form.STATE),
    Column("endpoint", "endpoint_id", Form.ID),
)

RESOURCES = (
    Resource(
        "endpoints",
        "endpoint",
        "Webhook endpoints: where notifications are sent.",
        ("endpoint_id",),
        _ENDPOINT,
        (
            Verb("list", "WebhookService/ListEndpoints"),
            Verb("get", "WebhookService/GetEndpoint"),
            Verb("create", "WebhookService/CreateEndpoint", ("endpoint.url",), done="created"),
            Verb("update", "WebhookService/UpdateEndpoint", done="updated"),
            Verb("enable", "WebhookService/EnableEndpoint", done="enabled"),
            Verb("disable", "WebhookService/DisableEndpoint", done="disabled"),
            Verb(
                "rotate-secret",
                "WebhookService/RotateSecret",
                irreversible="replaces the signing secret of the endpoint {endpoint_id}; the old one goes on signing"
                " until the grace is over",
                done="rotated the secret of",
            ),
            Verb("test", "WebhookService/SendTestEvent", columns=_DELIVERY, done="sent a test event:"),
            Verb("recover", "WebhookService/RecoverEndpoint", columns=_JOB, done="started"),
            Verb(
                "delete",
                "WebhookService/DeleteEndpoint",
                irreversible="deletes the endpoint {endpoint_id} with its secrets and deliveries, for good",
                done="deleted",
            ),
        ),
        field="endpoint",
        get="WebhookService/GetEndpoint",
    ),
    Resource(
        "deliveries",
        "delivery",
        "Deliveries of notifications to endpoints.",
        ("delivery_id",),
        _DELIVERY,
        (
            Verb("list", "WebhookService/ListDeliveries"),
            Verb("get", "WebhookService/GetDelivery", item="delivery"),
            Verb("attempts", "WebhookService/ListAttempts", columns=_ATTEMPT),
            Verb(
                "redeliver",
                "WebhookService/RedeliverNotification",
                ("endpoint_id", "notification_id"),
                done="made due again:",
            ),
            Verb(
                "redeliver-many",
                "WebhookService/RedeliverDeliveries",
                ("endpoint_id",),
                columns=_JOB,
                irreversible="sends all deliveries of the selection to {endpoint_id} again",
                done="started",
            ),
        ),
    ),
    Resource(
        "redelivery-jobs",
        "job",
        "Jobs that send deliveries again.",
        ("job_id",),
        _JOB,
        (Verb("list", "WebhookService/ListRedeliveryJobs"), Verb("get", "WebhookService/GetRedeliveryJob")),
    ),
    Resource(
        "operator-events",
        "operator event",
        "Events about endpoints and evaluations, for operators.",
        ("event_id",),
        _EVENT,
        (Verb("list", "WebhookService/ListOperatorEvents"),),
    ),
)
