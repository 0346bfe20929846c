"""The explanation: why an alert has notified about a customer, or why it has not, in sentences."""

from datetime import UTC, datetime

from aiohttp import web

from console.access.api import ApiError
from console.access.visit import Visit
from generated.tidemark.v1.alert_pb2 import ALERT_STATE_ACTIVE, ALERT_STATE_DISABLED
from generated.tidemark.v1.alert_service_pb2 import (
    ExplainCustomerAlertRequest,
    ListAlertsRequest,
    ListCustomerAlertsRequest,
)
from generated.tidemark.v1.list_order_pb2 import LIST_ORDER_NEWEST_FIRST

CHOICES = 200  # alerts to choose from; where there are more, the id of another one can be typed


async def page(visit: Visit) -> web.StreamResponse:
    """The form, and the explanation if an alert and a customer are given."""
    alert_id = visit.query("alert")
    customer_id = visit.viewer.customer_id or visit.query("customer")
    explanation, problem, at = None, "", visit.query("at")
    if alert_id and customer_id:
        request = ExplainCustomerAlertRequest(
            alert_id=alert_id, customer_id=customer_id, subscription_id=visit.query("subscription")
        )
        try:
            if at:
                request.period_time.FromDatetime(datetime.fromisoformat(at).replace(tzinfo=UTC))
            answer = await visit.calls(visit.api.alerts.ExplainCustomerAlert, request)
            explanation = answer.explanation
        except ValueError:
            problem = f"{at} is not a date: write it as 2026-11-29."
        except ApiError as error:
            if not error.is_missing and not error.violations:
                raise
            problem = "; ".join(one.description for one in error.violations) or error.message
    alerts, has_more = await _choices(visit)
    return visit.render(
        "explain.html",
        status=404 if problem else 200,
        alerts=alerts,
        has_more=has_more,
        alert_id=alert_id,
        customer_id=customer_id,
        at=at,
        explanation=explanation,
        problem=problem,
    )


async def _choices(visit: Visit) -> tuple[list[tuple[str, str]], bool]:
    """The ids and names of alerts to choose from, and whether there are more."""
    if visit.viewer.is_limited:
        states = await visit.calls(
            visit.api.alerts.ListCustomerAlerts,
            ListCustomerAlertsRequest(customer_id=visit.viewer.customer_id, page_size=CHOICES),
        )
        choices = [(one.alert.alert_id, one.alert.display_name) for one in states.customer_alerts]
        return choices, bool(states.next_page_token)
    request = ListAlertsRequest(
        page_size=CHOICES, order=LIST_ORDER_NEWEST_FIRST, states=[ALERT_STATE_ACTIVE, ALERT_STATE_DISABLED]
    )
    answer = await visit.calls(visit.api.alerts.ListAlerts, request)
    return [(one.alert_id, one.display_name) for one in answer.alerts], bool(answer.next_page_token)
