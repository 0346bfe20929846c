"""The calls that are measured: each list and view, with each filter that it offers."""

from datetime import timedelta

from google.protobuf.message import Message

from bench.views.data import BIG, FEW, GROUPED, MEMBER
from bench.views.measuring import Case
from generated.tidemark.v1 import (
    alert_pb2,
    condition_pb2,
    customer_alert_pb2,
    delivery_pb2,
    event_type_pb2,
    list_order_pb2,
)
from generated.tidemark.v1 import alert_service_pb2 as alerts
from generated.tidemark.v1 import webhook_service_pb2 as webhooks
from runtime.clock import SystemClock
from server.calls.validation import to_timestamp

LARGEST_PAGE = 1_000
_ALERTS, _WEBHOOKS = "tidemark.v1.AlertService", "tidemark.v1.WebhookService"
_NEWEST = list_order_pb2.LIST_ORDER_NEWEST_FIRST


def cases(ids: dict[str, str]) -> list[Case]:
    """All of them. ids: of the alerts, by name."""
    return [*_list_alerts(), *_of_customers(ids), *_list_notifications(ids), *_of_webhooks()]


def _list_alerts() -> list[Case]:
    request = alerts.ListAlertsRequest
    since = to_timestamp(SystemClock().now() - timedelta(days=1))
    wanted = {
        "": request(),
        "newest first": request(order=_NEWEST),
        "page of 1,000": request(page_size=LARGEST_PAGE),
        "customer with 3": request(customer_id=FEW),
        "customer with 1,000": request(customer_id=BIG),
        "plan": request(plan_id="no-plan"),
        "subscription": request(subscription_id="no-subscription"),
        "uniqueness key": request(uniqueness_key="key5"),
        "state, common": request(states=[alert_pb2.ALERT_STATE_ACTIVE]),
        "state, rare": request(states=[alert_pb2.ALERT_STATE_DISABLED]),
        "type, rare": request(condition_types=[condition_pb2.CONDITION_TYPE_USAGE_EXCEEDED]),
        "label, common": request(labels={"env": "prod"}),
        "label, rare": request(labels={"team": "rare"}),
        "prefix": request(display_name_prefix="alert 99"),
        "time": request(start_time=since),
        "total size": request(include_total_size=True),
        "total size of a rare type": request(
            condition_types=[condition_pb2.CONDITION_TYPE_USAGE_EXCEEDED], include_total_size=True
        ),
    }
    return [_case(_ALERTS, "ListAlerts", name, one) for name, one in wanted.items()]


def _of_customers(ids: dict[str, str]) -> list[Case]:
    one, many = alerts.GetCustomerAlertRequest, alerts.ListCustomerAlertsRequest
    in_alarm = [customer_alert_pb2.CUSTOMER_ALERT_STATUS_IN_ALARM]
    fine = [customer_alert_pb2.CUSTOMER_ALERT_STATUS_OK]
    named = {
        "many groups": one(alert_id=ids["groups"], customer_id=GROUPED),
        "no group": one(alert_id=ids["wide"], customer_id="c7"),
    }
    listed = {
        "customer": many(customer_id="c7"),
        "customer, in alarm": many(customer_id="c7", statuses=in_alarm),
        "customer of one of many plans": many(customer_id=MEMBER),
        "customer with 3 of its own": many(customer_id=FEW),
        "customer with 1,000": many(customer_id=BIG),
        "customer with 1,000, all": many(customer_id=BIG, page_size=LARGEST_PAGE),
        "customer with 1,000, in alarm": many(customer_id=BIG, statuses=in_alarm),
        "all customers": many(),
        "all customers, in alarm": many(statuses=in_alarm),
        "all customers, in alarm, 1,000": many(statuses=in_alarm, page_size=LARGEST_PAGE),
        "all customers, one alert, OK": many(alert_ids=[ids["wide"]], statuses=fine),
        "3 customers, in alarm": many(customer_ids=["c7", "c8", "c9"], statuses=in_alarm),
    }
    return [
        *(_case(_ALERTS, "GetCustomerAlert", name, request) for name, request in named.items()),
        *(_case(_ALERTS, "ListCustomerAlerts", name, request) for name, request in listed.items()),
        _case(_ALERTS, "SummarizeCustomerAlerts", "", alerts.SummarizeCustomerAlertsRequest()),
    ]


def _list_notifications(ids: dict[str, str]) -> list[Case]:
    request = alerts.ListNotificationsRequest
    since = to_timestamp(SystemClock().now() - timedelta(days=1))
    wanted = {
        "": request(),
        "page of 1,000": request(page_size=LARGEST_PAGE),
        "customer with few": request(customer_ids=[FEW]),
        "100 customers": request(customer_ids=[f"c{number}" for number in range(100)]),
        "alert": request(alert_ids=[ids["own"]]),
        "event type, rare": request(event_types=[event_type_pb2.EVENT_TYPE_ALERT_DISABLED]),
        "time": request(start_time=since),
    }
    return [_case(_ALERTS, "ListNotifications", name, one) for name, one in wanted.items()]


def _of_webhooks() -> list[Case]:
    request = webhooks.ListDeliveriesRequest
    since = to_timestamp(SystemClock().now() - timedelta(days=1))
    wanted = {
        "": request(),
        "oldest first": request(order=list_order_pb2.LIST_ORDER_OLDEST_FIRST),
        "page of 1,000": request(page_size=LARGEST_PAGE),
        "endpoint": request(endpoint_id="whe_7"),
        "notification": request(notification_id="no-notification"),
        "customer with few": request(customer_id=FEW),
        "status, waiting": request(statuses=[delivery_pb2.DELIVERY_STATUS_PENDING]),
        "status, rare": request(statuses=[delivery_pb2.DELIVERY_STATUS_FAILED]),
        "time": request(start_time=since),
        "total size": request(include_total_size=True),
    }
    return [
        _case(_WEBHOOKS, "ListEndpoints", "", webhooks.ListEndpointsRequest()),
        *(_case(_WEBHOOKS, "ListDeliveries", name, one) for name, one in wanted.items()),
    ]


def _case(service: str, method: str, name: str, request: Message) -> Case:
    return Case(f"{method}: {name}" if name else method, f"{service}/{method}", request)
