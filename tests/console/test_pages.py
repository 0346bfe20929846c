"""Each page, against a real server."""

import re
from typing import Any

import grpc
import pytest

from console.access.api import ApiError, Calls
from generated.tidemark.v1.account_service_pb2 import GetBalanceSeriesRequest
from generated.tidemark.v1.alert_service_pb2 import GetCustomerAlertSeriesRequest
from tests.support.console.stage import Stage


async def test_the_overview_shows_what_is_in_alarm_and_the_latest_notifications(console: Stage) -> None:
    page = await (await console.visitor("reader")).get("/")
    assert page.status == 200
    assert "Spend of every customer" in page.main
    assert page.tree.all("svg", class_="columns"), "usage and notifications have plots"
    assert "acme-inc" in page.tree.first("header").text
    fragment = await (await console.visitor("reader")).get("/overview/live")
    assert "In alarm now" in fragment.text
    assert "<html" not in fragment.text


async def test_customers_are_found_by_prefix_external_id_and_plan(console: Stage) -> None:
    visitor = await console.visitor("reader")
    everybody = (await visitor.get("/customers")).main
    assert "Acme Robotics" in everybody
    assert "Vandelay Industries" in everybody
    found = (await visitor.get("/customers?q=glo")).main
    assert "globex" in found
    assert "acme" not in found
    assert (await visitor.get("/customers?q=crm-0042")).url == "/customer?id=acme"
    of_plan = (await visitor.get("/customers?plan=starter")).main
    assert "initech" in of_plan
    assert "hooli" not in of_plan
    assert "No customer found" in (await visitor.get("/customers?q=nobody")).main


async def test_a_customer_has_gauges_with_bars_and_curves_balances_limits_and_invoices(console: Stage) -> None:
    page = await (await console.visitor("reader")).get("/customer?id=acme")
    assert page.status == 200
    curves = page.tree.all("svg", class_="curve")
    assert len(curves) >= 5, "three alerts on usage, one of them by model, and two balances"
    for curve in curves:
        assert curve.attributes["role"] == "img"
        assert curve.attributes["aria-label"]
        assert curve.all("polyline", class_="line")
    marks = page.tree.all("circle", class_="mark-reached")
    assert marks, "crossings are on the curves"
    assert all("reached" in mark.first("title").text for mark in marks)
    assert page.tree.all("rect", class_="tick-limit"), "a bar shows the limit"
    assert page.tree.all("details", class_="as-table"), "each curve is a table, too"
    for text in ("Annual commit", "Welcome credits", "INV-2002", "tokens-acme", "req-9000", "held"):
        assert text in page.main, text
    assert "$1,180.55" in page.main
    assert re.search(r"used up (in \d+ days|in \d+ h)", page.main), "the burn-down is projected"


@pytest.mark.parametrize("code", [grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_a_customer_is_shown_without_the_curves_that_do_not_come_in_time(
    console: Stage, monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode
) -> None:
    call = Calls.__call__

    async def late(self: Calls, method: Any, request: Any) -> Any:
        if isinstance(request, GetCustomerAlertSeriesRequest | GetBalanceSeriesRequest):
            raise ApiError(code, "later")
        return await call(self, method, request)

    monkeypatch.setattr(Calls, "__call__", late)
    page = await (await console.visitor("reader")).get("/customer?id=acme")
    assert page.status == 200
    assert not page.tree.all("svg", class_="curve")
    assert page.tree.all("rect", class_="tick-limit")


async def test_alerts_are_filtered(console: Stage) -> None:
    visitor = await console.visitor("reader")
    assert "Prepaid credits are low" in (await visitor.get("/alerts")).main
    by_label = (await visitor.get("/alerts?label=team%3Drevenue")).main
    assert "Commit is running out" in by_label
    assert "Tokens by model" not in by_label
    by_type = (await visitor.get("/alerts?type=12")).main
    assert "Large invoice" in by_type
    assert "Tokens by model" not in by_type.replace("Monthly", "")
    assert "No alert passes the filters" in (await visitor.get("/alerts?q=zzz")).main


async def test_an_alert_says_who_is_in_alarm_who_is_near_and_who_changed_it(console: Stage) -> None:
    page = await (await console.visitor("admin")).get(f"/alerts/{console.made.alerts['tokens']}")
    assert "Notifies when the usage of tokens by every customer on plan pro" in page.main
    assert "50 % of the limit" in page.main
    assert "acme" in page.main
    assert "Created" in page.main
    assert "Ann" in page.main, "the audit log has the name of the key"


async def test_a_notification_shows_its_evidence(console: Stage) -> None:
    visitor = await console.visitor("reader")
    listed = await visitor.get("/notifications?customer=acme")
    path = next(
        one.attributes["href"] for one in listed.tree.all("a") if "/notifications/ntf_" in one.attributes["href"]
    )
    page = await visitor.get(path)
    assert "Evidence" in page.main
    assert "acme-" in page.main, "the crossing event"
    assert "webhook" in page.main


async def test_an_explanation_is_in_sentences(console: Stage) -> None:
    visitor = await console.visitor("reader")
    page = await visitor.get(f"/explain?alert={console.made.alerts['spend']}&customer=acme")
    assert "The alert has notified" in page.main
    assert "The scope of the alert covers the customer" in page.main
    unknown = await visitor.get(f"/explain?alert={console.made.alerts['spend']}&customer=nobody")
    assert unknown.status == 404
    assert "'nobody' not found" in unknown.main


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/nothing", 404, "There is no such page"),
        ("/alerts/alt_unknown", 404, "This does not exist"),
        ("/customer?id=nobody", 404, "This does not exist"),
        ("/endpoints/whe_unknown", 404, "This does not exist"),
        ("/customers?page=forged", 400, "The server refused the request"),
    ],
)
async def test_an_error_says_what_to_do(console: Stage, path: str, status: int, text: str) -> None:
    page = await (await console.visitor("reader")).get(path)
    assert page.status == status
    assert text in page.main


async def test_every_page_is_well_formed_and_has_landmarks_labels_and_one_heading(console: Stage) -> None:
    visitor = await console.visitor("admin")
    paths = [
        "/",
        "/customers",
        "/customer?id=acme",
        "/alerts",
        "/alerts/new",
        "/notifications",
        "/endpoints",
        "/explain",
    ]
    paths += [f"/alerts/{one}" for one in console.made.alerts.values()]
    paths += [f"/alerts/{console.made.alerts['spend']}/edit"]
    for path in paths:
        tree = (await visitor.get(path)).tree
        assert len(tree.all("h1")) == 1, path
        assert len(tree.all("main", id="main")) == 1, path
        assert tree.all("a", class_="skip", href="#main"), path
        labels = {one.attributes.get("for") for one in tree.all("label")}
        for tag in ("input", "select", "textarea"):
            for one in tree.all(tag):
                if one.attributes.get("type") in ("hidden", "checkbox"):
                    continue
                assert one.attributes.get("id") in labels, f"{path}: {one.attributes}"
        ids = [one.attributes["id"] for one in tree.walk() if "id" in one.attributes]
        assert len(ids) == len(set(ids)), f"{path}: ids occur twice"
        assert not [one for one in tree.walk() if "style" in one.attributes], path
