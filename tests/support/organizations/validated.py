"""Valid requests for every mutating method, for an organization that has what the steps put before `READS`.

Each is sent with validate_only. The requests would change something: what they create is new, and what they change,
void or delete exists.
"""

from collections.abc import Sequence

from tests.support.organizations.fact_steps import FACTS, HELD, RECHARGES
from tests.support.organizations.step import Step
from tests.support.organizations.steps import ALERTS, USAGE, WEBHOOKS

_START = "seconds: 1773500000"
_USAGE_ALERT = 'scope { all_customers {} } usage_threshold_reached { metric_id: "calls" } thresholds { value: "1" }'
_SEGMENT = f'segments {{ amount: "1000" start_time {{ {_START} }} }}'

# What the requests need besides: a second endpoint, and alerts that are off or archived.
POPULATION: Sequence[Step] = (
    *(*FACTS, *ALERTS, *HELD, *USAGE, *RECHARGES[:-1], *WEBHOOKS),
    Step("second endpoint", "CreateEndpoint", 'endpoint { url: "https://second.example.com/" }'),
    Step("endpoint off", "DisableEndpoint", 'endpoint_id: "whe_second endpoint"'),
    Step("alert off", "DisableAlert", 'alert_id: "alt_plan"'),
    Step("alert off for bob", "DisableAlert", 'alert_id: "alt_usage" customer_id: "bob"'),
    Step("archived alert", "ArchiveAlert", 'alert_id: "alt_percent"'),
)


def _validated(name: str, method: str, request: str) -> Step:
    return Step(f"validated {name}", method, f"{request} validate_only: true")


_FACTS = (
    _validated("metric", "PutMetric", 'metric { metric_id: "calls" display_name: "other" }'),
    _validated("new metric", "PutMetric", 'metric { metric_id: "later" aggregation: AGGREGATION_LATEST }'),
    _validated("plan", "PutPlan", 'plan { plan_id: "gold" display_name: "other" }'),
    _validated("customer", "PutCustomer", 'customer { customer_id: "ann" currency: "GBP" aliases: "anna" }'),
    _validated("new customer", "PutCustomer", 'customer { customer_id: "new" plan_id: "gold" currency: "GBP" }'),
    _validated(
        "subscription", "PutSubscription", 'subscription { customer_id: "ann" subscription_id: "s1" plan_id: "iron" }'
    ),
    _validated(
        "new subscription",
        "PutSubscription",
        'subscription { customer_id: "new" subscription_id: "s1" plan_id: "gold" }',
    ),
    _validated(
        "limit",
        "PutLimit",
        'limit { limit_id: "of-ann" customer { customer_id: "ann" } quantity { metric_id: "calls" } amount: "1" }',
    ),
    _validated("delete limit", "DeleteLimit", 'limit_id: "of-ann"'),
    _validated("delete metric", "DeleteMetric", 'metric_id: "seats"'),
    _validated("delete plan", "DeletePlan", 'plan_id: "iron"'),
    _validated("delete subscription", "DeleteSubscription", 'customer_id: "ann" subscription_id: "s2"'),
    _validated("delete customer", "DeleteCustomer", 'customer_id: "ann" request_id: "v"'),
)

_MONEY = (
    _validated(
        "invoice",
        "PutInvoice",
        'invoice { customer_id: "ann" invoice_id: "i2" status: INVOICE_STATUS_PAID currency: "$unit" total: "9000"'
        f" period_end_time {{ {_START} }} }}",
    ),
    _validated(
        "balance",
        "PutBalance",
        'balance { customer_id: "ann" balance_id: "b2" kind: BALANCE_KIND_COMMIT spend { currency: "$unit" }'
        f" draw_down: true {_SEGMENT} }}",
    ),
    _validated(
        "new balance",
        "PutBalance",
        'balance { customer_id: "new" balance_id: "b1" kind: BALANCE_KIND_COMMIT spend { currency: "$unit" }'
        f" draw_down: true {_SEGMENT} }}",
    ),
    _validated("adjustment", "AdjustBalance", 'customer_id: "ann" balance_id: "b1" adjustment_id: "v" amount: "-95"'),
    _validated(
        "decrement",
        "DecrementBalances",
        'customer_id: "ann" adjustment_id: "w" spend { currency: "$unit" } amount: "95"',
    ),
    _validated(
        "recharge policy",
        "PutRechargePolicy",
        'recharge_policy { customer_id: "ann" balance_id: "b4" below: "60" fixed { amount: "7" } }',
    ),
    _validated(
        "new recharge policy",
        "PutRechargePolicy",
        'recharge_policy { customer_id: "ann" balance_id: "b1" below: "5000" up_to { level: "6000" } }',
    ),
    _validated(
        "report of a recharge", "ReportRecharge", 'customer_id: "ann" recharge_id: "rch_rcp_policy_2" paid {}'
    ),
    _validated("enabled recharge policy", "EnableRechargePolicy", 'customer_id: "ann" balance_id: "b2"'),
    _validated("delete recharge policy", "DeleteRechargePolicy", 'customer_id: "ann" balance_id: "b4"'),
    _validated("void of a balance", "VoidBalance", 'customer_id: "ann" balance_id: "b1"'),
)

_DEFINITIONS = (
    _validated("alert", "CreateAlert", f'request_id: "v" alert {{ display_name: "other" {_USAGE_ALERT} }}'),
    _validated(
        "alerts",
        "BatchCreateAlerts",
        f'request_id: "v" requests {{ alert {{ display_name: "other" {_USAGE_ALERT} }} }}',
    ),
    _validated("change of an alert", "UpdateAlert", 'alert { alert_id: "alt_usage" thresholds { value: "13" } }'),
    _validated(
        "alert by its key",
        "UpdateAlert",
        f'allow_missing: true alert {{ display_name: "other" uniqueness_key: "new" {_USAGE_ALERT} }}',
    ),
    _validated(
        "changes of alerts",
        "BatchUpdateAlerts",
        'request_id: "v" requests { alert { alert_id: "alt_usage" thresholds { value: "13" } } }',
    ),
    _validated("enabled alert", "EnableAlert", 'alert_id: "alt_plan"'),
    _validated("enabled alert for bob", "EnableAlert", 'alert_id: "alt_usage" customer_id: "bob"'),
    _validated("disabled alert", "DisableAlert", 'alert_id: "alt_usage"'),
    _validated("disabled alert for ann", "DisableAlert", 'alert_id: "alt_usage" customer_id: "ann"'),
    _validated("reset", "ResetCustomerAlert", 'alert_id: "alt_usage" customer_id: "ann"'),
    _validated("archived alert", "ArchiveAlert", 'alert_id: "alt_usage" release_uniqueness_key: true'),
    _validated("archived alerts", "BatchArchiveAlerts", 'request_id: "v" requests { alert_id: "alt_usage" }'),
    _validated("released key", "ReleaseUniquenessKey", 'alert_id: "alt_percent"'),
    _validated(
        "void of events",
        "VoidUsageEvents",
        'request_id: "v" events { customer_id: "ann" event_id: "e1" } events { customer_id: "ann" event_id: "e2" }',
    ),
)

_ENDPOINT = 'endpoint_id: "whe_endpoint"'
_DELIVERIES = (
    _validated("endpoint", "CreateEndpoint", 'request_id: "v" endpoint { url: "https://v.example.com/" }'),
    _validated("change of an endpoint", "UpdateEndpoint", f'endpoint {{ {_ENDPOINT} display_name: "other" }}'),
    _validated("enabled endpoint", "EnableEndpoint", 'endpoint_id: "whe_second endpoint"'),
    _validated("disabled endpoint", "DisableEndpoint", _ENDPOINT),
    _validated("rotation", "RotateSecret", f'request_id: "v" {_ENDPOINT}'),
    _validated("delete endpoint", "DeleteEndpoint", _ENDPOINT),
    _validated("test event", "SendTestEvent", f'request_id: "v" {_ENDPOINT}'),
    _validated(
        "redelivery of one",
        "RedeliverNotification",
        f'request_id: "v" {_ENDPOINT} notification_id: "tst_test event"',
    ),
    _validated(
        "redelivery",
        "RedeliverDeliveries",
        f'request_id: "v" {_ENDPOINT} statuses: DELIVERY_STATUS_PENDING start_time {{ seconds: 1700000000 }}',
    ),
    _validated("recovery", "RecoverEndpoint", f'request_id: "v" {_ENDPOINT} start_time {{ {_START} }}'),
)

VALIDATED: Sequence[Step] = (*_FACTS, *_MONEY, *_DEFINITIONS, *_DELIVERIES)


def usage_after(step: Step) -> Step:
    """Usage on which the changes of the steps would have an effect, with event ids of its own.

    The metric `later` is used after its step only: usage registers it as a sum.
    """
    used = [("ann", "calls"), ("bob", "calls"), ("new", "calls")]
    if step.name == "validated new metric":
        used.append(("ann", "later"))
    events = " ".join(
        f'events {{ event_id: "{step.name} {metric}" customer_id: "{customer}" subscription_id: "s1"'
        f' metric_id: "{metric}" quantity: "1" cost: "0.5" currency: "$unit" event_time {{ seconds: 1773576000 }}'
        ' properties { key: "region" value: "eu" } properties { key: "user" value: "u1" } }'
        for customer, metric in used
    )
    return Step(f"usage after {step.name}", "EvaluateUsageBatch", f"batch {{ include_gauges: true {events} }}")
