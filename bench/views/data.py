"""The data of the views: one of each kind by calls, and then copies of their rows by SQL."""

import psycopg

from generated.tidemark.v1 import alert_service_pb2 as messages
from generated.tidemark.v1 import usage_pb2
from generated.tidemark.v1.alert_service_pb2_grpc import AlertServiceStub
from runtime.clock import SystemClock
from server.calls.validation import to_timestamp
from tests.support.alerts.client import Client
from tests.support.server.running import Running

TEMPLATE = "template"  # the customer whose rows are copied
GROUPED = "grouped"  # a customer with many groups of one alert
BIG = "big"  # a customer with many alerts
FEW = "few"  # a customer with three alerts among those of all others
ENDPOINTS = 50  # that exist; the others are deleted
MAX_GROUPS = 10_000  # of one customer
MAX_BIG = 1_000  # alerts of one customer
MAX_PLANS = 10_000  # that have an alert each; the customer MEMBER is on one of them
MEMBER = "member"

_ALERTS = {
    "wide": 'display_name: "wide" scope { all_customers {} } usage_threshold_reached { metric_id: "tokens" }'
    ' thresholds { value: "5" }',
    "groups": 'display_name: "groups" scope { all_customers {} }'
    ' usage_threshold_reached { metric_id: "seats" group_values { key: "seat" } } thresholds { value: "5" }',
    "own": 'display_name: "own" scope { customer { customer_id: "template" } }'
    ' usage_threshold_reached { metric_id: "tokens" } thresholds { value: "7" } labels { key: "env" value: "prod" }',
}


async def prepare(running: Running, key: str, clock: SystemClock) -> dict[str, str]:
    """Creates the alerts and the usage that is copied; returns the ids of the alerts by their names."""
    stub = AlertServiceStub(running.channel)
    client = Client(running.channel, key)
    ids = {name: (await client.create(text)).alert_id for name, text in _ALERTS.items()}
    now = to_timestamp(clock.now())
    events = [
        usage_pb2.UsageEvent(event_id="1", customer_id=TEMPLATE, metric_id="tokens", quantity="10", event_time=now),
        usage_pb2.UsageEvent(
            event_id="2",
            customer_id=GROUPED,
            metric_id="seats",
            quantity="10",
            event_time=now,
            properties={"seat": "s0"},
        ),
    ]
    await stub.EvaluateUsageBatch(
        messages.EvaluateUsageBatchRequest(batch=usage_pb2.UsageBatch(events=events)),
        metadata=(("authorization", f"Bearer {key}"),),
    )
    return ids


# Each copy: a row of the template with some columns replaced. number runs from 1 to the size.
_COPIES = (
    """
INSERT INTO customer SELECT (jsonb_populate_record(c, jsonb_build_object('customer_id', 'c' || number))).*
FROM customer c, generate_series(1, %(size)s) AS number WHERE customer_id = 'template'
""",
    """
INSERT INTO customer SELECT (jsonb_populate_record(c, jsonb_build_object('customer_id', name))).*
FROM customer c, unnest(ARRAY['few', 'big', 'member']) AS name WHERE customer_id = 'template'
""",
    """
UPDATE customer SET plan_id = 'plan7' WHERE customer_id = 'member'
""",
    """
INSERT INTO alert SELECT (jsonb_populate_record(a, jsonb_build_object(
    'alert_id', 'alt_plan' || number, 'name', 'plan ' || number, 'natural_key', NULL, 'visit_after', NULL,
    'uniqueness_key', NULL, 'scope', 'PLAN', 'plan_id', 'plan' || number, 'customer_id', NULL))).*
FROM alert a, generate_series(1, %(plans)s) AS number WHERE alert_id = %(own)s
""",
    """
INSERT INTO gauge SELECT (jsonb_populate_record(g, jsonb_build_object(
    'customer_id', 'c' || number, 'gauge_id', md5('gauge' || number)::uuid))).*
FROM gauge g, generate_series(1, %(size)s) AS number WHERE customer_id = 'template'
""",
    """
INSERT INTO alert_state SELECT (jsonb_populate_record(s, jsonb_build_object(
    'customer_id', 'c' || number, 'gauge_id', md5('gauge' || number)::uuid,
    'change_time', now() - number * interval '1 second'))).*
FROM alert_state s, generate_series(1, %(size)s) AS number WHERE customer_id = 'template' AND alert_id = %(wide)s
""",
    """
INSERT INTO gauge SELECT (jsonb_populate_record(g, jsonb_build_object(
    'gauge_id', md5('group' || number)::uuid,
    'group_values', jsonb_build_array(jsonb_build_array('seat', 's' || number))))).*
FROM gauge g, generate_series(1, %(group_count)s) AS number WHERE customer_id = 'grouped'
""",
    """
INSERT INTO alert_state SELECT (jsonb_populate_record(s, jsonb_build_object(
    'gauge_id', md5('group' || number)::uuid))).*
FROM alert_state s, generate_series(1, %(group_count)s, 10) AS number WHERE customer_id = 'grouped'
""",
    """
INSERT INTO alert SELECT (jsonb_populate_record(a, jsonb_build_object(
    'alert_id', 'alt_' || md5(number::text), 'name', 'alert ' || number, 'natural_key', NULL, 'visit_after', NULL,
    'uniqueness_key', 'key' || number, 'uniqueness_key_held', true,
    'customer_id', CASE WHEN number <= 3 THEN 'few' WHEN number <= %(big)s THEN 'big' ELSE 'c' || number END,
    'state', CASE WHEN number %% 1000 = 7 THEN 'DISABLED' WHEN number %% 10 = 3 THEN 'ARCHIVED' ELSE 'ACTIVE' END,
    'condition_type', CASE WHEN number %% 10000 = 5 THEN 'usage_exceeded' ELSE a.condition_type END,
    'labels', CASE WHEN number %% 20000 = 9 THEN '{"env": "prod", "team": "rare"}'::jsonb ELSE a.labels END,
    'create_time', now() - interval '2 days' + number * interval '1 second'))).*
FROM alert a, generate_series(1, %(size)s) AS number WHERE alert_id = %(own)s
""",
    """
INSERT INTO notification SELECT (jsonb_populate_record(n, jsonb_build_object(
    'notification_id', 'ntf_' || md5(number::text), 'gauge_id', NULL, 'sequence', 0,
    'customer_id', CASE WHEN number %% 30000 = 1 THEN 'few' ELSE 'c' || number %% 1000 END,
    'alert_id', CASE WHEN number %% 100 = 1 THEN %(own)s ELSE n.alert_id END,
    'event_type', CASE WHEN number %% 10000 = 1 THEN 'alert.disabled' ELSE n.event_type END,
    'create_time', now() - interval '2 days' + number * interval '1 second'))).*
FROM notification n, generate_series(1, %(size)s) AS number
WHERE customer_id = 'template' AND alert_id = %(wide)s
""",
    """
INSERT INTO feed (organization_id, last_place, high_time) SELECT min(organization_id), 0, 'epoch' FROM alert
ON CONFLICT DO NOTHING
""",
    """
INSERT INTO feed_entry (
    organization_id, place, notification_id, customer_id, alert_id, event_type, condition_type, create_time, high_time
)
SELECT organization_id, last_place + row_number() OVER (ORDER BY create_time), notification_id, customer_id, alert_id,
    event_type, condition_type, create_time, greatest(high_time, create_time)
FROM notification JOIN feed USING (organization_id) WHERE gauge_id IS NULL
""",
    """
UPDATE feed SET last_place = (SELECT max(place) FROM feed_entry), high_time = now()
""",
    """
INSERT INTO endpoint (organization_id, endpoint_id, url, event_types, state, create_time, delete_time)
SELECT (SELECT min(organization_id) FROM alert), 'whe_' || number, 'https://example.com', '{}', 'DISABLED',
    now() - interval '2 days' + number * interval '1 second', CASE WHEN number > %(endpoints)s THEN now() END
FROM generate_series(1, %(size)s) AS number
""",
    """
INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type, status,
    create_time, next_attempt_time, finish_time, finish_day)
SELECT organization_id, 'whd_' || md5(notification_id), 'whe_' || ((number - 1) %% 50 + 1), notification_id,
    customer_id, event_type,
    CASE WHEN number %% 1000 = 2 THEN 'PENDING' WHEN number %% 5000 = 3 THEN 'FAILED' ELSE 'DELIVERED' END,
    create_time, CASE WHEN number %% 1000 = 2 THEN now() END, CASE WHEN number %% 1000 <> 2 THEN create_time END,
    CASE WHEN number %% 1000 = 2 THEN 'infinity'::date ELSE create_time::date END
FROM (SELECT *, row_number() OVER (ORDER BY create_time) AS number FROM notification WHERE gauge_id IS NULL) AS n
""",
    """
INSERT INTO wallet (organization_id, customer_id, due_time)
SELECT (SELECT min(organization_id) FROM alert), 'c' || number,
    now() + interval '1 year' + number * interval '1 second'
FROM generate_series(1, %(size)s) AS number
""",
)


def copy(url: str, size: int, alert_ids: dict[str, str]) -> None:
    """Makes `size` copies of each kind of row."""
    parameters = {
        "size": size,
        "group_count": min(size, MAX_GROUPS),
        "big": min(size, MAX_BIG),
        "plans": min(size, MAX_PLANS),
        "endpoints": ENDPOINTS,
        **alert_ids,
    }
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in _COPIES:
            connection.execute(statement.encode(), parameters)
        connection.execute("VACUUM ANALYZE")
