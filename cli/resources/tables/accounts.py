"""Customers, subscriptions, plans, metrics, limits, invoices, quotas and the audit log."""

from cli.resources.tables import texts
from cli.resources.tables.model import Column, Form, Resource, Verb

_CUSTOMER = (
    Column("id", "customer_id", Form.ID),
    Column("name", "display_name"),
    Column("plan", "plan_id", Form.ID, rank=1),
    Column("parent", "parent_customer_id", Form.ID, rank=3),
    Column("currency", "currency", rank=2),
    Column("period ends", "current_billing_period.end_time", Form.TIME, rank=2),
    Column("created", "create_time", Form.TIME, rank=4),
)
_SUBSCRIPTION = (
    Column("customer", "customer_id", Form.ID),
    Column("id", "subscription_id", Form.ID),
    Column("name", "display_name", rank=2),
    Column("plan", "plan_id", Form.ID),
    Column("started", "start_time", Form.TIME, rank=2),
    Column("ends", "end_time", Form.TIME, rank=1),
    Column("period ends", "current_billing_period.end_time", Form.TIME, rank=3),
)
_PLAN = (
    Column("id", "plan_id", Form.ID),
    Column("name", "display_name"),
    Column("custom fields", "custom_fields", Form.MAP, rank=1),
    Column("created", "create_time", Form.TIME),
)
_METRIC = (
    Column("id", "metric_id", Form.ID),
    Column("name", "display_name", rank=1),
    Column("aggregation", "aggregation", Form.STATE),
    Column("event", "event_name", rank=1),
    Column("property", lambda metric: metric.quantity_property or metric.unique_property, rank=2),
    Column("created", "create_time", Form.TIME, rank=3),
)
_LIMIT = (
    Column("id", "limit_id", Form.ID),
    Column("of", texts.holder, Form.ID),
    Column("amount", texts.amount("amount"), Form.NUMBER),
    Column("per", texts.window),
    Column("groups", texts.groups, rank=2),
    Column("enforcement", "enforcement", Form.STATE),
    Column("name", "display_name", rank=1),
)
_INVOICE = (
    Column("customer", "customer_id", Form.ID),
    Column("id", "invoice_id", Form.ID),
    Column("total", texts.total, Form.NUMBER),
    Column("status", "status", Form.STATE),
    Column("type", "type", rank=2),
    Column("period starts", "period_start_time", Form.TIME, rank=2),
    Column("period ends", "period_end_time", Form.TIME, rank=1),
)
_QUOTA = (
    Column("quota", "kind", Form.STATE),
    Column("limit", texts.quota_limit, Form.NUMBER),
    Column("used", "used", Form.NUMBER),
    Column("own", "own"),
)
_ERASURE = (
    Column("id", "job_id", Form.ID),
    Column("customer", "customer_id", Form.ID),
    Column("state", "state", Form.STATE),
    Column("steps", lambda job: f"{job.completed_steps}/{job.total_steps}", Form.NUMBER),
    Column("deleted", "deleted_count", Form.NUMBER, rank=1),
    Column("pseudonym", "pseudonym", Form.ID, rank=2),
    Column("created", "create_time", Form.TIME),
)
_ENTRY = (
    Column("number", "entry_number", Form.NUMBER),
    Column("time", "create_time", Form.TIME),
    Column("by", texts.actor),
    Column("method", lambda entry: entry.method.rpartition("/")[2]),
    Column("resource", "resource_type", Form.STATE, rank=1),
    Column("id", "resource_id", Form.ID),
    Column("customer", "customer_id", Form.ID, rank=2),
    Column("changed", "changed_fields", Form.LIST, rank=3),
)


def _deletes(what: str) -> str:
    return f"deletes the {what} for good"


RESOURCES = (
    Resource(
        "customers",
        "customer",
        "Customers: who is billed.",
        ("customer_id",),
        _CUSTOMER,
        (
            Verb("list", "AccountService/ListCustomers"),
            Verb("get", "AccountService/GetCustomer"),
            Verb(
                "delete",
                "AccountService/DeleteCustomer",
                columns=_ERASURE,
                irreversible="erases the customer {customer_id} with its usage, states and notifications, for good",
                done="is being erased:",
            ),
        ),
        field="customer",
        put="AccountService/PutCustomer",
        get="AccountService/GetCustomer",
    ),
    Resource(
        "erasures",
        "erasure job",
        "Jobs that erase deleted customers.",
        ("job_id",),
        _ERASURE,
        (Verb("list", "AccountService/ListErasureJobs"), Verb("get", "AccountService/GetErasureJob")),
    ),
    Resource(
        "subscriptions",
        "subscription",
        "Subscriptions of customers.",
        ("customer_id", "subscription_id"),
        _SUBSCRIPTION,
        (
            Verb("list", "AccountService/ListSubscriptions"),
            Verb("get", "AccountService/GetSubscription"),
            Verb(
                "delete",
                "AccountService/DeleteSubscription",
                irreversible=_deletes("subscription {subscription_id} of {customer_id}"),
                done="deleted",
            ),
        ),
        field="subscription",
        put="AccountService/PutSubscription",
        get="AccountService/GetSubscription",
    ),
    Resource(
        "plans",
        "plan",
        "Plans, which alerts, limits and customers name.",
        ("plan_id",),
        _PLAN,
        (
            Verb("list", "AccountService/ListPlans"),
            Verb("get", "AccountService/GetPlan"),
            Verb("delete", "AccountService/DeletePlan", irreversible=_deletes("plan {plan_id}"), done="deleted"),
        ),
        field="plan",
        put="AccountService/PutPlan",
        get="AccountService/GetPlan",
    ),
    Resource(
        "metrics",
        "metric",
        "Metrics: how usage is added up.",
        ("metric_id",),
        _METRIC,
        (
            Verb("list", "AccountService/ListMetrics"),
            Verb("get", "AccountService/GetMetric"),
            Verb(
                "delete", "AccountService/DeleteMetric", irreversible=_deletes("metric {metric_id}"), done="deleted"
            ),
        ),
        field="metric",
        put="AccountService/PutMetric",
        get="AccountService/GetMetric",
    ),
    Resource(
        "limits",
        "limit",
        "Limits of customers and plans, and whether usage fits into them.",
        ("limit_id",),
        _LIMIT,
        (
            Verb("list", "AccountService/ListLimits"),
            Verb("get", "AccountService/GetLimit"),
            Verb("delete", "AccountService/DeleteLimit", irreversible=_deletes("limit {limit_id}"), done="deleted"),
        ),
        field="limit",
        put="AccountService/PutLimit",
        get="AccountService/GetLimit",
    ),
    Resource(
        "invoices",
        "invoice",
        "Invoices of customers.",
        ("customer_id", "invoice_id"),
        _INVOICE,
        (Verb("list", "AccountService/ListInvoices"), Verb("get", "AccountService/GetInvoice")),
        field="invoice",
        put="AccountService/PutInvoice",
        get="AccountService/GetInvoice",
    ),
    Resource(
        "quotas",
        "quota",
        "Quotas of organizations.",
        (),
        _QUOTA,
        (Verb("list", "AccountService/GetQuotas"),),
        commands=(("show", "cli.organizations.quotas:show"), ("set", "cli.organizations.quotas:set_")),
    ),
    Resource(
        "whoami",
        "caller",
        "The organization and the key of a call.",
        (),
        (),
        (Verb("get", "AccountService/GetCaller"),),
    ),
    Resource(
        "audit",
        "audit entry",
        "The audit log: who changed what.",
        ("entry_number",),
        _ENTRY,
        (
            Verb("list", "AuditService/ListAuditEntries"),
            Verb("get", "AuditService/GetAuditEntry"),
            Verb("watch", "AuditService/WatchAuditEntries", item="entry"),
        ),
    ),
)
