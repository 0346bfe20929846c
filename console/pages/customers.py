"""Customers: the list with its search, and one customer with all that is known of it."""

import asyncio
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from console.access.api import ApiError
from console.access.visit import Visit, see_other
from console.pages import balances
from console.pages.gauges import Shown, shown_alert
from console.words import alerts as alert_words
from console.words.rendering import link
from generated.tidemark.v1 import customer_pb2, reservation_pb2
from generated.tidemark.v1.account_service_pb2 import (
    GetCustomerRequest,
    ListBalancesRequest,
    ListCustomersRequest,
    ListInvoicesRequest,
    ListLimitsRequest,
    ListOveragesRequest,
    ListSubscriptionsRequest,
)
from generated.tidemark.v1.alert_service_pb2 import (
    GetCustomerAlertSeriesRequest,
    ListCustomerAlertsRequest,
    ListNotificationsRequest,
)
from generated.tidemark.v1.customer_alert_pb2 import CUSTOMER_ALERT_STATUS_IN_ALARM
from generated.tidemark.v1.limit_service_pb2 import ListReservationsRequest

PAGE = 25  # customers
ALERTS = 20  # of one customer on a page
CURVES = 12  # gauges of one page that have a curve; the others have bars
GAUGES = 6  # of one alert on the page of a customer
FACTS = 20  # invoices, balances and so on
RECENT = 10  # notifications


async def listed(visit: Visit) -> web.StreamResponse:
    """A page of customers, by id."""
    if visit.viewer.is_limited:
        return see_other(link("/customer", id=visit.viewer.customer_id))
    text, plan, token = visit.query("q"), visit.query("plan"), visit.query("page")
    if text and not token:
        found = await _exact(visit, text)
        if found is not None and found.customer_id != text:  # by its external id or an alias
            return see_other(link("/customer", id=found.customer_id))
    request = ListCustomersRequest(
        page_size=PAGE,
        page_token=token,
        plan_id=plan,
        customer_id_prefix=text,
        include_total_size=not token,
    )
    answer = await visit.calls(visit.api.accounts.ListCustomers, request)
    in_alarm = await _in_alarm(visit, [one.customer_id for one in answer.customers])
    return visit.render(
        "customers.html",
        customers=answer.customers,
        total=answer.total_size if answer.HasField("total_size") else None,
        next_token=answer.next_page_token,
        q=text,
        plan=plan,
        in_alarm=in_alarm,
        is_first=not token,
    )


async def _exact(visit: Visit, text: str) -> customer_pb2.Customer | None:
    """The customer with this external id or alias."""
    requests = (GetCustomerRequest(external_id=text), GetCustomerRequest(alias=text))
    for answer in await asyncio.gather(
        *(visit.calls(visit.api.accounts.GetCustomer, one) for one in requests), return_exceptions=True
    ):
        if not isinstance(answer, BaseException):
            return answer.customer  # type: ignore[no-any-return]
        if not isinstance(answer, ApiError):
            raise answer
    return None


async def _in_alarm(visit: Visit, customer_ids: list[str]) -> dict[str, int]:
    """On how many gauges each of the customers is in alarm, of those that are in alarm."""
    if not customer_ids:
        return {}
    request = ListCustomerAlertsRequest(
        customer_ids=customer_ids[:100],
        statuses=[CUSTOMER_ALERT_STATUS_IN_ALARM],
        page_size=200,
    )
    answer = await visit.calls(visit.api.alerts.ListCustomerAlerts, request)
    found: dict[str, int] = {}
    for one in answer.customer_alerts:
        found[one.customer_id] = found.get(one.customer_id, 0) + 1
    return found


async def one(visit: Visit) -> web.StreamResponse:
    """One customer."""
    customer_id = visit.query("id")
    if not customer_id:
        return see_other("/customers")
    accounts, calls = visit.api.accounts, visit.calls
    customer = (await calls(accounts.GetCustomer, GetCustomerRequest(customer_id=customer_id))).customer
    (
        states,
        subscriptions,
        balance_list,
        invoices,
        notifications,
        held,
        limits,
        plan_limits,
        overages,
    ) = await asyncio.gather(
        calls(
            visit.api.alerts.ListCustomerAlerts,
            ListCustomerAlertsRequest(customer_id=customer_id, page_size=ALERTS, page_token=visit.query("alerts")),
        ),
        calls(accounts.ListSubscriptions, ListSubscriptionsRequest(customer_id=customer_id, page_size=FACTS)),
        calls(
            accounts.ListBalances,
            ListBalancesRequest(customer_id=customer_id, page_size=FACTS, page_token=visit.query("balances")),
        ),
        calls(
            accounts.ListInvoices,
            ListInvoicesRequest(customer_id=customer_id, page_size=FACTS, page_token=visit.query("invoices")),
        ),
        calls(
            visit.api.alerts.ListNotifications, ListNotificationsRequest(customer_ids=[customer_id], page_size=RECENT)
        ),
        visit.optional(
            calls(
                visit.api.limits.ListReservations,
                ListReservationsRequest(
                    customer_id=customer_id, page_size=FACTS, states=[reservation_pb2.RESERVATION_STATE_OPEN]
                ),
            )
        ),
        calls(accounts.ListLimits, ListLimitsRequest(customer_id=customer_id, page_size=FACTS)),
        visit.optional(_limits_of_plan(visit, customer)),
        calls(accounts.ListOverages, ListOveragesRequest(customer_id=customer_id, page_size=FACTS)),
    )
    zone = customer.billing_cycle.time_zone or "UTC"
    gauges, shown_balances = await asyncio.gather(
        _gauges(visit, states.customer_alerts, zone),
        balances.shown(visit, customer_id, balance_list.balances, zone),
    )
    return visit.render(
        "customer.html",
        customer=customer,
        zone=zone,
        states=states.customer_alerts,
        gauges=gauges,
        more_alerts=states.next_page_token,
        subscriptions=subscriptions.subscriptions,
        balances=shown_balances,
        more_balances=balance_list.next_page_token,
        overages=overages.overages,
        invoices=sorted(invoices.invoices, key=lambda one: -one.period_end_time.seconds),
        more_invoices=invoices.next_page_token,
        notifications=notifications.notifications,
        held=[] if held is None else held.reservations,
        limits=limits.limits,
        plan_limits=[] if plan_limits is None else plan_limits.limits,
    )


async def _limits_of_plan(visit: Visit, customer: customer_pb2.Customer) -> Any:
    """The limits of the customer's plan; None without a plan, or for a key that sees this customer only."""
    if not customer.plan_id or visit.viewer.is_limited:
        return None
    request = ListLimitsRequest(plan_id=customer.plan_id, page_size=FACTS)
    return await visit.calls(visit.api.accounts.ListLimits, request)


async def _gauges(visit: Visit, states: Any, zone: str) -> list[tuple[Any, list[Shown]]]:
    """The alerts with their gauges; the first ones with the curve of the period."""
    left = CURVES
    pending = []
    for one in states:
        gauges = list(one.gauges[:GAUGES])
        curves = 0 if not alert_words.has_series(one.alert) else min(left, len(gauges))
        left -= curves
        pending.append(_one_alert(visit, one, gauges, curves, zone))
    return list(zip(states, await asyncio.gather(*pending), strict=True))


async def _one_alert(visit: Visit, state: Any, gauges: list[Any], curves: int, zone: str) -> list[Shown]:
    series = await asyncio.gather(*(visit.optional(_series(visit, state, gauge.gauge)) for gauge in gauges[:curves]))
    crossings = None
    if curves:
        start = min((one.gauge.billing_period.start_time.seconds for one in gauges), default=0)
        request = ListNotificationsRequest(
            customer_ids=[state.customer_id], alert_ids=[state.alert.alert_id], page_size=200
        )
        request.start_time.FromDatetime(datetime.fromtimestamp(start, UTC))
        crossings = (await visit.calls(visit.api.alerts.ListNotifications, request)).notifications
    return [
        shown_alert(state.alert, gauge, series[index] if index < curves else None, crossings or (), visit.now, zone)
        for index, gauge in enumerate(gauges)
    ]


async def _series(visit: Visit, state: Any, gauge: Any) -> Any:
    """The curve of one gauge; None if there is none any more."""
    request = GetCustomerAlertSeriesRequest(
        alert_id=state.alert.alert_id,
        customer_id=state.customer_id,
        subscription_id=gauge.subscription_id,
        group=gauge.group,
    )
    try:
        return await visit.calls(visit.api.alerts.GetCustomerAlertSeries, request)
    except ApiError as error:
        if error.is_missing or error.violations or error.is_too_much:
            return None
        raise
