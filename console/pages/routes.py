"""Which page has which address."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from console.access.visit import Visit
from console.pages import alert_form, alerts, customers, endpoints, explain, notifications, overview

Page = Callable[[Visit], Awaitable[web.StreamResponse]]


def routes() -> list[tuple[str, str, Page]]:
    """Method, path and page of each."""
    return [
        ("GET", "/", overview.page),
        ("GET", "/overview/live", overview.live),
        ("GET", "/customers", customers.listed),
        ("GET", "/customer", customers.one),
        ("GET", "/alerts", alerts.listed),
        ("GET", "/alerts/new", alert_form.new),
        ("POST", "/alerts/new", alert_form.create),
        ("GET", "/alerts/{alert_id}", alerts.one),
        ("GET", "/alerts/{alert_id}/edit", alert_form.edit),
        ("POST", "/alerts/{alert_id}/edit", alert_form.update),
        ("POST", "/alerts/{alert_id}/enable", alerts.enable),
        ("POST", "/alerts/{alert_id}/disable", alerts.disable),
        ("POST", "/alerts/{alert_id}/archive", alerts.archive),
        ("GET", "/notifications", notifications.listed),
        ("GET", "/notifications/{notification_id}", notifications.one),
        ("POST", "/notifications/{notification_id}/redeliver", notifications.redeliver),
        ("GET", "/deliveries/{delivery_id}", notifications.delivery),
        ("GET", "/endpoints", endpoints.listed),
        ("POST", "/endpoints", endpoints.create),
        ("GET", "/endpoints/{endpoint_id}", endpoints.one),
        ("POST", "/endpoints/{endpoint_id}/test", endpoints.test),
        ("POST", "/endpoints/{endpoint_id}/recover", endpoints.recover),
        ("POST", "/endpoints/{endpoint_id}/rotate", endpoints.rotate),
        ("POST", "/endpoints/{endpoint_id}/enable", endpoints.enable),
        ("POST", "/endpoints/{endpoint_id}/disable", endpoints.disable),
        ("GET", "/explain", explain.page),
    ]
