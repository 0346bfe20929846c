"""The steps of an organization: every method of the API, with ids that other organizations may have as well."""

from collections.abc import Sequence

from tests.support.organizations.fact_steps import FACTS, HELD, RECHARGES
from tests.support.organizations.step import BEFORE, NOW, Step

_THRESHOLD = 'thresholds { value: "$low" } thresholds { value: "$high" }'
_ANN = 'scope { customer { customer_id: "ann" } }'
_ALL = "scope { all_customers {} }"
_S1 = 'scope { subscription { customer_id: "ann" subscription_id: "s1" } }'
_GOLD = 'scope { plan { plan_id: "gold" } }'


def _events(*ids: str, customer: str = "ann") -> str:
    events = " ".join(
        f'events {{ event_id: "{one}" customer_id: "{customer}" subscription_id: "s1" metric_id: "calls"'
        f' quantity: "$quantity" cost: "$more" event_time {{ {NOW} }}'
        ' properties { key: "region" value: "eu" } properties { key: "user" value: "u1" } }'
        for one in ids
    )
    return f"batch {{ include_gauges: true {events} }}"


def _alert(name: str, scope: str, condition: str, more: str = _THRESHOLD) -> Step:
    request = f'request_id: "{name}" alert {{ display_name: "$name" {scope} {condition} {more} }}'
    return Step(name, "CreateAlert", request)


ALERTS = (
    _alert(
        "usage", _ALL, 'usage_threshold_reached { metric_id: "calls" }', _THRESHOLD + ' uniqueness_key: "the-key"'
    ),
    _alert("spend", _ALL, 'spend_threshold_reached { currency: "$unit" group_values { key: "region" } }'),
    _alert("cost", _S1, "cost_exceeded {}"),
    _alert("filtered", _S1, 'spend_exceeded { currency: "$unit" }'),
    _alert("plan", _GOLD, 'usage_exceeded { metric_id: "calls" }'),
    _alert("commit", _ANN, 'low_remaining_commit_balance_reached { spend { currency: "$unit" } }'),
    _alert("days", _ANN, "low_remaining_days_for_commit_segment_reached {}"),
    _alert(
        "seat",
        _ALL,
        'low_remaining_seat_balance_reached { seat_filter { seat_group_key: "user" } spend { currency: "$unit" } }',
    ),
    _alert("license", _ANN, 'license_balance_threshold_reached { license_type: "editor" }'),
    _alert("invoice", _ALL, 'invoice_total_reached { currency: "$unit" }'),
    _alert("month", _ALL, 'monthly_invoice_total_spend_threshold_reached { currency: "$unit" }'),
    _alert("term", _ALL, "low_remaining_days_in_plan_reached {}"),
    _alert(
        "percent",
        _ALL,
        'usage_threshold_reached { metric_id: "calls" }',
        'thresholds { percent_of_limit: "80" } uniqueness_key: "another"',
    ),
)

_USED = 'usage { customer_id: "ann" metric_id: "seats" quantity: "$more" }'
_RESERVED = 'customer_id: "ann" reservation_id: '

RESERVATIONS = (
    Step(
        "enforced limit",
        "PutLimit",
        'limit { limit_id: "hard" customer { customer_id: "ann" } quantity { metric_id: "seats" }'
        ' amount: "$amount" enforcement: LIMIT_ENFORCEMENT_HARD }',
    ),
    *(
        Step(f"reservation {name}", "ReserveUsage", f'reservation_id: "{name}" {_USED}')
        for name in ("settled", "released", "held")
    ),
    Step("settlement", "SettleReservation", _RESERVED + '"settled" quantity: "$low"'),
    Step("release", "ReleaseReservation", _RESERVED + '"released"'),
    Step("extension", "ExtendReservation", _RESERVED + '"held" ttl { seconds: 3600 }'),
    Step("their reservation", "ReserveUsage", f'reservation_id: "odd" {_USED}', "theirs"),
    Step("settlement of theirs", "SettleReservation", _RESERVED + '"odd"', "ours"),
)

USAGE = (
    Step("events", "EvaluateUsageBatch", _events("e1", "e2")),
    Step("events again", "EvaluateUsageBatch", _events("e2", "e3")),
    Step("events of bob", "EvaluateUsageBatch", _events("e1", customer="bob")),
)

READS = (
    *(
        Step(f"get {method.removeprefix('Get')}", method, request)
        for method, request in (
            ("GetQuotas", ""),
            ("GetBalanceSeries", 'customer_id: "ann" balance_id: "b1"'),
            ("GetMetric", 'metric_id: "calls"'),
            ("GetPlan", 'plan_id: "gold"'),
            ("GetCustomer", 'customer_id: "ann"'),
            ("GetSubscription", 'customer_id: "ann" subscription_id: "s1"'),
            ("GetBalance", 'customer_id: "ann" balance_id: "b1"'),
            ("GetInvoice", 'customer_id: "ann" invoice_id: "i1"'),
            ("GetEndpoint", 'endpoint_id: "whe_endpoint"'),
            ("GetLimit", 'limit_id: "of-ann"'),
            ("GetRechargePolicy", 'customer_id: "ann" balance_id: "b4"'),
            ("GetRecharge", 'customer_id: "ann" recharge_id: "rch_rcp_policy_1"'),
        )
    ),
    Step("customer by external id", "GetCustomer", 'external_id: "crm-ann"'),
    Step("their customer by external id", "GetCustomer", 'external_id: "crm-odd"'),
    Step("their customer by alias", "GetCustomer", 'alias: "odd"'),
    Step("their customers by alias", "ListCustomers", 'alias: "odd"'),
    Step("subscription of one of two", "GetSubscription", 'subscription_id: "s1"'),
    Step("subscription of ann only", "GetSubscription", 'subscription_id: "s2"'),
    Step("their subscription only", "GetSubscription", 'subscription_id: "odd"'),
    Step("subscriptions of an id", "ListSubscriptions", 'subscription_id: "s1"'),
    *(
        Step(f"get their {method.removeprefix('Get')}", method, request)
        for method, request in (
            ("GetMetric", 'metric_id: "odd"'),
            ("GetPlan", 'plan_id: "odd"'),
            ("GetCustomer", 'customer_id: "odd"'),
            ("GetSubscription", 'customer_id: "odd" subscription_id: "odd"'),
        )
    ),
    *(
        Step(f"state of {alert.name}", "GetCustomerAlert", f'customer_id: "ann" alert_id: "alt_{alert.name}"')
        for alert in ALERTS
    ),
    Step("audit entries", "ListAuditEntries", 'methods: "/tidemark.v1.AccountService/PutPlan"'),
    Step("audit entries of ann", "ListAuditEntries", 'customer_id: "ann"'),
    Step("first audit entry", "GetAuditEntry", "entry_number: 1"),
    Step("metrics", "ListMetrics"),
    Step("plans", "ListPlans"),
    Step("customers", "ListCustomers"),
    Step("customers of a plan", "ListCustomers", 'plan_id: "gold"'),
    Step("subscriptions", "ListSubscriptions"),
    Step("subscriptions of ann", "ListSubscriptions", 'customer_id: "ann"'),
    Step("balances", "ListBalances", "include_voided: true"),
    Step("entries", "ListBalanceEntries", 'customer_id: "ann"'),
    Step("overages", "ListOverages", 'customer_id: "ann"'),
    Step("recharge policies", "ListRechargePolicies", "include_total_size: true"),
    Step("recharge policies that are off", "ListRechargePolicies", "state: RECHARGE_POLICY_STATE_DISABLED"),
    Step("recharges", "ListRecharges", "include_total_size: true"),
    Step("open recharges", "ListRecharges", "state: RECHARGE_STATE_REQUESTED"),
    Step("recharges of a balance", "ListRecharges", 'customer_id: "ann" balance_id: "b4"'),
    Step("invoices", "ListInvoices"),
    Step("invoices of a type", "ListInvoices", 'type: "USAGE"'),
    Step("limits", "ListLimits"),
    Step("reservation", "GetReservation", _RESERVED + '"held"'),
    Step("reservations", "ListReservations", 'customer_id: "ann"'),
    Step("check", "CheckUsage", _USED),
    Step(
        "checks",
        "BatchCheckUsage",
        'customer_ids: ["ann", "odd"] usages { metric_id: "seats" quantity: "$quantity" }',
    ),
    Step("alerts", "ListAlerts"),
    Step("alert of a key", "ListAlerts", 'uniqueness_key: "the-key"'),
    Step("alerts of ann", "ListCustomerAlerts", 'customer_id: "ann"'),
    Step("alerts of all", "ListCustomerAlerts"),
    Step("totals of alerts", "SummarizeCustomerAlerts"),
    *(
        Step(f"reason of {alert.name}", "ExplainCustomerAlert", f'customer_id: "ann" alert_id: "alt_{alert.name}"')
        for alert in ALERTS
    ),
    Step("caller", "GetCaller"),
    Step("activity", "GetActivity"),
    Step("course of usage", "GetCustomerAlertSeries", 'customer_id: "ann" alert_id: "alt_usage"'),
    Step(
        "preview",
        "PreviewAlert",
        'customer_id: "ann" alert { display_name: "draft" scope { all_customers {} }'
        ' usage_threshold_reached { metric_id: "calls" } thresholds { value: "1" } }',
    ),
    Step("alert", "GetAlert", 'alert_id: "alt_usage"'),
    Step("changes", "ListAlertChanges", 'alert_id: "alt_usage"'),
    Step("notifications", "ListNotifications"),
    Step("notifications of ann", "ListNotifications", 'customer_ids: "ann" alert_ids: "alt_usage"'),
    Step("last notification", "GetNotification", 'notification_id: "$notification"'),
    Step("endpoints", "ListEndpoints"),
    Step("deliveries", "ListDeliveries"),
    Step("jobs", "ListRedeliveryJobs"),
    Step("operator events", "ListOperatorEvents"),
)

_SHARED = f'alert {{ display_name: "$name" {_ALL} usage_threshold_reached {{ metric_id: "calls" }} {_THRESHOLD}'

_CHANGES = (
    Step("early", "CreateAlert", _SHARED + ' uniqueness_key: "shared" }', "theirs"),
    Step("late", "CreateAlert", _SHARED + ' uniqueness_key: "shared" }', "ours"),
    Step("too late", "CreateAlert", _SHARED + ' uniqueness_key: "shared" }'),
    Step(
        "second spend alert",
        "CreateAlert",
        f'alert {{ display_name: "$name" {_S1} spend_exceeded {{ currency: "GBP" }} {_THRESHOLD} }}',
    ),
    Step("create again", "CreateAlert", ALERTS[0].request),
    Step(
        "taken key",
        "CreateAlert",
        f'alert {{ display_name: "$name" {_ANN} usage_threshold_reached {{ metric_id: "calls" }} {_THRESHOLD}'
        ' uniqueness_key: "the-key" }',
    ),
    Step(
        "taken place",
        "CreateAlert",
        f'alert {{ display_name: "$name" {_GOLD} usage_exceeded {{ metric_id: "calls" }} {_THRESHOLD} }}',
    ),
    Step(
        "unknown ids",
        "CreateAlert",
        'alert { display_name: "$name" scope { plan { plan_id: "odd" } } usage_threshold_reached { metric_id: "odd" }'
        f" {_THRESHOLD} }}",
    ),
    Step("rename", "UpdateAlert", 'alert { alert_id: "alt_usage" display_name: "$name again" }'),
    Step("raise", "UpdateAlert", 'alert { alert_id: "alt_usage" thresholds { value: "$limit" } }'),
    Step(
        "update by key",
        "UpdateAlert",
        'alert { uniqueness_key: "the-key" labels { key: "team" value: "$name" } } allow_missing: true',
    ),
    Step("labelled", "ListAlerts", 'labels { key: "team" value: "$name" } include_total_size: true'),
    Step(
        "batch",
        "BatchCreateAlerts",
        f'requests {{ alert {{ display_name: "$name one" {_ALL} usage_threshold_reached {{ metric_id: "batch" }}'
        f' {_THRESHOLD} uniqueness_key: "batch" }} }} request_id: "batch"',
    ),
    Step(
        "batch of updates",
        "BatchUpdateAlerts",
        'requests { alert { uniqueness_key: "batch" display_name: "$name three" } }'
        ' requests { alert { alert_id: "alt_usage" labels { key: "tier" value: "$name" } } }',
    ),
    Step("batch to archive", "BatchArchiveAlerts", 'requests { alert_id: "alt_month" }'),
    Step("disable for ann", "DisableAlert", 'alert_id: "alt_usage" customer_id: "ann"'),
    Step("disabled", "GetCustomerAlert", 'alert_id: "alt_usage" customer_id: "ann"'),
    Step("exclusions", "ListAlertExclusions", 'alert_id: "alt_usage"'),
    Step("events while disabled", "EvaluateUsageBatch", _events("e4")),
    Step("enable for ann", "EnableAlert", 'alert_id: "alt_usage" customer_id: "ann"'),
    Step("void events", "VoidUsageEvents", 'events { customer_id: "ann" event_id: "e4" }'),
    Step("void other events", "VoidUsageEvents", 'events { customer_id: "ann" event_id: "$name" }'),
    Step("reset", "ResetCustomerAlert", 'alert_id: "alt_usage" customer_id: "ann"'),
    Step("disable", "DisableAlert", 'alert_id: "alt_spend"'),
    Step("enable", "EnableAlert", 'alert_id: "alt_spend"'),
    Step("archive", "ArchiveAlert", 'alert_id: "alt_usage"'),
    Step("release", "ReleaseUniquenessKey", 'alert_id: "alt_usage"'),
    Step("enable a policy", "EnableRechargePolicy", 'customer_id: "ann" balance_id: "b2"'),
    Step("delete a policy", "DeleteRechargePolicy", 'customer_id: "ann" balance_id: "b2"'),
    Step("void", "VoidBalance", 'customer_id: "ann" balance_id: "b3"'),
    Step("policies at the end", "ListRechargePolicies"),
    Step("recharges at the end", "ListRecharges"),
    # One limit uses it. Of several users the answer names any, and the two runs would differ.
    Step("metric in use", "PutMetric", 'metric { metric_id: "used" display_name: "$name" }'),
    Step(
        "its limit",
        "PutLimit",
        'limit { limit_id: "of-used" customer { customer_id: "ann" } amount: "$limit"'
        ' quantity { metric_id: "used" } }',
    ),
    Step("delete a metric in use", "DeleteMetric", 'metric_id: "used"'),
    Step("delete a plan in use", "DeletePlan", 'plan_id: "gold"'),
    Step("delete a subscription in use", "DeleteSubscription", 'customer_id: "ann" subscription_id: "s1"'),
    Step("delete a metric", "DeleteMetric", 'metric_id: "seats"'),
    Step("delete a plan", "DeletePlan", 'plan_id: "iron"'),
    Step("delete a subscription", "DeleteSubscription", 'customer_id: "ann" subscription_id: "s2"'),
    Step("delete a limit", "DeleteLimit", 'limit_id: "of-ann"'),
    Step("delete a metric of theirs", "DeleteMetric", 'metric_id: "odd"', "ours"),
    Step("delete a plan of theirs", "DeletePlan", 'plan_id: "odd"', "ours"),
    Step("metrics at the end", "ListMetrics"),
    Step("limits at the end", "ListLimits"),
    Step("changes at the end", "ListAlertChanges", 'alert_id: "alt_usage"'),
    Step("alerts at the end", "ListAlerts"),
    Step("archived alerts of ann", "ListCustomerAlerts", 'customer_id: "ann" states: ALERT_STATE_ARCHIVED'),
    Step("entries at the end", "ListBalanceEntries", 'customer_id: "ann"'),
    Step("balances at the end", "ListBalances", 'customer_id: "ann"'),
    Step("notifications at the end", "ListNotifications"),
)

WEBHOOKS = (
    Step("endpoint", "CreateEndpoint", 'endpoint { url: "https://$name.example.com/" display_name: "$name" }'),
    Step("test event", "SendTestEvent", 'request_id: "t1" endpoint_id: "whe_endpoint"'),
    Step("test event again", "SendTestEvent", 'request_id: "t1" endpoint_id: "whe_endpoint"'),
    Step("recovery", "RecoverEndpoint", f'endpoint_id: "whe_endpoint" start_time {{ {BEFORE} }}'),
    Step("recovery job", "GetRedeliveryJob", 'job_id: "rdj_recovery"'),
    Step(
        "redelivery",
        "RedeliverDeliveries",
        'endpoint_id: "whe_endpoint" statuses: DELIVERY_STATUS_FAILED start_time { seconds: 1700000000 }',
    ),
    Step("redelivery job", "GetRedeliveryJob", 'job_id: "rdj_redelivery"'),
    Step("again", "RedeliverNotification", 'endpoint_id: "whe_endpoint" notification_id: "tst_test event"'),
)

_END_OF_WEBHOOKS = (
    Step(
        "change endpoint",
        "UpdateEndpoint",
        'endpoint { endpoint_id: "whe_endpoint" display_name: "$name again" } update_mask { paths: "display_name" }',
    ),
    Step("rotate", "RotateSecret", 'endpoint_id: "whe_endpoint"'),
    Step("disable endpoint", "DisableEndpoint", 'endpoint_id: "whe_endpoint"'),
    Step("enable endpoint", "EnableEndpoint", 'endpoint_id: "whe_endpoint"'),
    Step("delete endpoint", "DeleteEndpoint", 'endpoint_id: "whe_endpoint"'),
    Step("endpoints at the end", "ListEndpoints"),
)

_ERASURES = (
    Step("erase ann", "DeleteCustomer", 'customer_id: "ann" request_id: "erase"'),
    Step("erase ann again", "DeleteCustomer", 'customer_id: "ann" request_id: "erase"'),
    Step("erase a customer of theirs", "DeleteCustomer", 'customer_id: "odd"', "ours"),
    Step("erasure job", "GetErasureJob", 'job_id: "erj_erase ann"'),
    Step("erasure jobs", "ListErasureJobs"),
    Step("erased customer", "GetCustomer", 'customer_id: "ann"'),
    Step("customers after the erasure", "ListCustomers"),
    Step("entries of the pseudonym", "ListBalanceEntries", 'customer_id: "erased_erase ann"'),
    Step("invoices of the pseudonym", "ListInvoices", 'customer_id: "erased_erase ann"'),
    Step("notifications after the erasure", "ListNotifications"),
    Step("alerts after the erasure", "ListAlerts"),
)

STEPS: Sequence[Step] = (
    *(*FACTS, *ALERTS, *HELD, *USAGE, *RESERVATIONS, *RECHARGES, *WEBHOOKS, *READS, *_CHANGES),
    *(*_END_OF_WEBHOOKS, *_ERASURES),
)
