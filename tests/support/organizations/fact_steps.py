"""The steps that put facts: metrics, plans, customers, subscriptions, limits, balances and invoices."""

from tests.support.organizations.step import BEFORE, END, NOW, Step

_BALANCE = f'customer_id: "ann" spend {{ currency: "$unit" }} segments {{ amount: "$amount" start_time {{ {BEFORE} }}'

FACTS = (
    Step(
        "metric",
        "PutMetric",
        'metric { metric_id: "calls" display_name: "$name" aggregation: $aggregation }',
    ),
    Step("other metric", "PutMetric", 'metric { metric_id: "seats" display_name: "$name" }'),
    Step("plan fact", "PutPlan", 'plan { plan_id: "gold" display_name: "$name" }'),
    Step("other plan", "PutPlan", 'plan { plan_id: "iron" display_name: "$name" }'),
    *(
        Step(
            f"customer {name}",
            "PutCustomer",
            f'customer {{ customer_id: "{name}" display_name: "$name" external_id: "crm-{name}"'
            f' plan_id: "gold" currency: "$unit"'
            f" billing_cycle {{ anchor_time {{ {BEFORE} }} cadence: $cadence }} plan_end_time {{ {END} }}"
            ' custom_fields { key: "who" value: "$name" } }',
        )
        for name in ("ann", "bob")
    ),
    *(
        Step(
            f"subscription of {name}",
            "PutSubscription",
            f'subscription {{ customer_id: "{name}" subscription_id: "s1" plan_id: "gold" }}',
        )
        for name in ("ann", "bob")
    ),
    Step(
        "another subscription",
        "PutSubscription",
        f'subscription {{ customer_id: "ann" subscription_id: "s2" currency: "$unit" start_time {{ {BEFORE} }} }}',
    ),
    Step("their metric", "PutMetric", 'metric { metric_id: "odd" }', "theirs"),
    Step("their plan", "PutPlan", 'plan { plan_id: "odd" }', "theirs"),
    Step(
        "their customer",
        "PutCustomer",
        'customer { customer_id: "odd" external_id: "crm-odd" aliases: "odd" plan_id: "odd" }',
        "theirs",
    ),
    Step("taken name", "PutCustomer", 'customer { customer_id: "eve" external_id: "crm-ann" }'),
    Step(
        "their subscription",
        "PutSubscription",
        'subscription { customer_id: "odd" subscription_id: "odd" plan_id: "odd" }',
        "theirs",
    ),
    *(
        Step(
            f"limit of {holder}",
            "PutLimit",
            f'limit {{ limit_id: "of-{holder}" {who} quantity {{ metric_id: "calls" }} amount: "$limit" }}',
        )
        for holder, who in (("ann", 'customer { customer_id: "ann" }'), ("gold", 'plan { plan_id: "gold" }'))
    ),
)

HELD = (
    Step(
        "balance",
        "PutBalance",
        f'balance {{ balance_id: "b1" kind: BALANCE_KIND_COMMIT draw_down: true {_BALANCE} }} }}',
    ),
    Step(
        "ending balance",
        "PutBalance",
        f'balance {{ balance_id: "b2" kind: BALANCE_KIND_COMMIT {_BALANCE} end_time {{ {END} }} }} }}',
    ),
    Step(
        "seat credit",
        "PutBalance",
        'balance { balance_id: "b3" kind: BALANCE_KIND_SEAT_CREDIT draw_down: true'
        f' seat {{ seat_group_key: "user" seat_group_value: "u1" }} {_BALANCE} end_time {{ {END} }} }} }}',
    ),
    Step(
        "allotment",
        "PutBalance",
        f'balance {{ balance_id: "b4" kind: BALANCE_KIND_LICENSE_ALLOTMENT license_type: "editor" {_BALANCE} }} }}',
    ),
    Step(
        "adjustment",
        "AdjustBalance",
        'customer_id: "ann" balance_id: "b1" adjustment_id: "a1" amount: "$more"',
    ),
    Step(
        "adjustment again",
        "AdjustBalance",
        'customer_id: "ann" balance_id: "b1" adjustment_id: "a1" amount: "$more"',
    ),
    *(
        Step(
            name,
            "DecrementBalances",
            'customer_id: "ann" adjustment_id: "d1" spend { currency: "$unit" } amount: "$more"',
        )
        for name in ("decrement", "decrement again")
    ),
    Step(
        "invoice fact",
        "PutInvoice",
        'invoice { customer_id: "ann" invoice_id: "i1" type: "$type" status: $status currency: "$unit"'
        f' total: "$amount" period_end_time {{ {NOW} }} }}',
    ),
    Step(
        "invoice again",
        "PutInvoice",
        'invoice { customer_id: "ann" invoice_id: "i1" type: "$type" status: $status currency: "$unit"'
        f' total: "$more" period_end_time {{ {NOW} }} }}',
    ),
    Step(
        "other invoice",
        "PutInvoice",
        'invoice { customer_id: "ann" invoice_id: "i2" status: $status currency: "$unit"'
        f' total: "$amount" period_end_time {{ {NOW} }} }}',
    ),
)

_POLICY = 'customer_id: "ann" below: "$limit" up_to { level: "9000" } failure_cooldown {} cooldown { seconds: 60 }'

# The allotment is low at once. The policy of the ending balance is off: its only recharge failed for good.
RECHARGES = (
    Step("policy", "PutRechargePolicy", f'recharge_policy {{ balance_id: "b4" {_POLICY} }}'),
    Step("lower", "AdjustBalance", 'customer_id: "ann" balance_id: "b4" adjustment_id: "a4" amount: "-$amount"'),
    Step(
        "failed recharge",
        "ReportRecharge",
        'customer_id: "ann" recharge_id: "rch_rcp_policy_1" failed { failure_message: "$name" }',
    ),
    Step(
        "failed recharge again",
        "ReportRecharge",
        'customer_id: "ann" recharge_id: "rch_rcp_policy_1" failed { failure_message: "$name" }',
    ),
    Step("policy again", "PutRechargePolicy", f'recharge_policy {{ balance_id: "b4" {_POLICY} max_attempts: 9 }}'),
    Step(
        "other policy",
        "PutRechargePolicy",
        'recharge_policy { customer_id: "ann" balance_id: "b2" below: "5000" fixed { amount: "$more" } }',
    ),
    Step(
        "recharge failed for good",
        "ReportRecharge",
        'customer_id: "ann" recharge_id: "rch_rcp_other policy_1" failed { permanent: true }',
    ),
    Step(
        "third policy",
        "PutRechargePolicy",
        'recharge_policy { customer_id: "ann" balance_id: "b3" below: "5000" fixed { amount: "$more" } }',
    ),
    Step("pay", "ReportRecharge", 'customer_id: "ann" recharge_id: "rch_rcp_third policy_1" paid {}'),
    Step("report of nothing", "ReportRecharge", 'customer_id: "ann" recharge_id: "rch_odd" paid {}'),
)
