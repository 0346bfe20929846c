"""What visitors change through the console: alerts by their forms, endpoints and deliveries."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest

from console.forms.parsing import fill
from console.forms.tree import Input, inputs, is_output
from generated.tidemark.v1 import alert_pb2
from tests.support.console.html import Element
from tests.support.console.stage import Page, Stage, Visitor, stage
from tests.support.databases import Template
from tests.support.waiting import within


@pytest.fixture(scope="module")
async def console(template: Template) -> AsyncIterator[Stage]:
    """A stage with a notifier and two receivers, with few days of usage."""
    with template.lent_database() as url:
        async with stage(url, with_notifier=True, days=3) as found:
            yield found


def fields_of(form: Element) -> list[tuple[str, str]]:
    """What a browser would send of a form, without a button."""
    found = []
    for one in form.walk():
        name, value = one.attributes.get("name"), one.attributes.get("value", "")
        if not name or one.tag == "button":
            continue
        if one.tag == "select":
            chosen = [each for each in one.all("option") if "selected" in each.attributes] or one.all("option")[:1]
            found += [(name, each.attributes["value"]) for each in chosen]
        elif one.tag == "textarea":
            found.append((name, "".join(each for each in one.content if isinstance(each, str))))
        elif one.attributes.get("type") not in ("checkbox", "radio") or "checked" in one.attributes:
            found.append((name, value))
    return found


def form_of(page: Page) -> Element:
    """The form of an alert."""
    return next(one for one in page.tree.all("form") if "data-partial" in one.attributes)


def with_values(fields: list[tuple[str, str]], **values: str) -> list[tuple[str, str]]:
    """The fields with some values; `__` stands for a dot."""
    wanted = {name.replace("__", "."): value for name, value in values.items()}
    kept = [one for one in fields if one[0] not in wanted]
    return kept + list(wanted.items())


async def showing(visitor: Visitor, path: str, text: str) -> Page:
    """The page, once it shows the text."""
    async with within(f"{text!r} on {path}"):
        while text not in (page := await visitor.get(path)).main:  # noqa: ASYNC110 – only another read shows it
            await asyncio.sleep(0.05)
    return page


async def test_an_alert_is_made_previewed_corrected_and_saved(console: Stage) -> None:
    visitor = await console.visitor("editor")
    page = await visitor.get("/alerts/new")
    fields = with_values(
        fields_of(form_of(page)),
        display_name="Storage",
        usage_threshold_reached__metric_id="tokens",
        thresholds__0__value="abc",
    )
    wrong = await visitor.post("/alerts/new", [*fields, ("action", "save")])
    assert wrong.status == 400
    assert wrong.tree.first("input", name="thresholds.0.value").attributes["aria-invalid"] == "true"
    fields = with_values(fields_of(form_of(wrong)), thresholds__0__value="90000000", preview_customer="acme")
    preview = await visitor.post("/alerts/new", [*fields, ("action", "preview")])
    assert preview.status == 200
    aside = preview.tree.first("aside").text
    assert "reaches 90,000,000 tokens" in aside
    assert re.search(r"Next: 90,000,000 tokens, [\d,]+ tokens away", aside), aside
    added = await visitor.post("/alerts/new", [*fields, ("action", "add:thresholds")])
    assert added.tree.all("input", name="thresholds.1.value")
    fields = with_values(fields_of(form_of(added)), thresholds__1__recurring_step="1000", thresholds__1__severity="3")
    removed = await visitor.post("/alerts/new", [*fields, ("action", "remove:thresholds.0")])
    assert removed.tree.first("input", name="thresholds.0.recurring_step").attributes["value"] == "1000"
    saved = await visitor.post("/alerts/new", [*fields, ("action", "save")])
    assert "The alert is created" in saved.main
    assert "every further 1,000 tokens" in saved.main
    again = await visitor.post("/alerts/new", [*fields, ("action", "save")])
    assert again.url == saved.url, "the form was sent twice, and one alert was made"


async def test_an_alert_is_edited_and_a_stale_form_is_refused(console: Stage) -> None:
    visitor, other = await console.visitor("editor"), await console.visitor("admin")
    path = f"/alerts/{console.made.alerts['credits']}"
    mine, theirs = await visitor.get(f"{path}/edit"), await other.get(f"{path}/edit")
    fields = with_values(fields_of(form_of(mine)), thresholds__0__value="60")
    preview = await visitor.post(f"{path}/edit", [*fields, ("action", "preview")])
    assert "falls to $60" in preview.tree.first("aside").text
    saved = await visitor.post(f"{path}/edit", [*fields, ("action", "save")])
    assert "The alert is changed" in saved.main
    assert "thresholds: $50 → $60" in saved.main
    stale = with_values(fields_of(form_of(theirs)), display_name="Other name")
    refused = await other.post(f"{path}/edit", [*stale, ("action", "save")])
    assert refused.status == 400
    assert "cannot be saved yet" in refused.main
    assert "Other name" not in (await visitor.get(path)).main


async def test_an_alert_is_disabled_enabled_and_archived(console: Stage) -> None:
    visitor = await console.visitor("editor")
    path = f"/alerts/{console.made.alerts['invoice']}"
    for action, text in (("disable", "not evaluated"), ("enable", "evaluated again"), ("archive", "is archived")):
        page = await visitor.get(path)
        [form] = [one for one in page.tree.all("form") if one.attributes["action"].endswith(action)]
        done = await visitor.post(f"{path}/{action}", fields_of(form))
        assert text in done.main
    assert not [one for one in (await visitor.get(path)).tree.all("form") if "/alerts/" in one.attributes["action"]]


@pytest.mark.parametrize("case", [one.name for one in alert_pb2.Alert.DESCRIPTOR.oneofs_by_name["condition"].fields])
async def test_every_condition_has_a_form_that_returns_what_it_shows(console: Stage, case: str) -> None:
    visitor = await console.visitor("editor")
    page = await visitor.get("/alerts/new")
    fields = with_values(fields_of(form_of(page)), condition=case)
    shown = await visitor.post("/alerts/new", [*fields, ("action", "reload")], X_Fragment="1")
    assert shown.status == 200
    names = {one.attributes.get("name", "") for one in shown.tree.walk()}
    condition = alert_pb2.Alert.DESCRIPTOR.fields_by_name[case].message_type
    assert condition is not None
    for field in condition.fields:
        name = field.containing_oneof.name if field.containing_oneof else field.name
        is_list = field.is_repeated and field.message_type is not None
        expected = f"add:{case}.{name}" if is_list else f"{case}.{name}"
        values = {one.attributes.get("value", "") for one in shown.tree.all("button")}
        is_there = expected in names | values or any(each.startswith(f"{expected}.") for each in names)
        assert is_there or is_output(field), expected


def test_a_form_returns_every_message_that_it_shows() -> None:
    from google.protobuf import text_format
    from multidict import MultiDict

    sent = text_format.Parse(
        """
        display_name: "All" scope { subscription { customer_id: "a" subscription_id: "s" } }
        cost_exceeded {
            grouping_keys: "model" grouping_keys: "region" currency: "USD"
            threshold_overrides { group_values { key: "model" value: "" } thresholds { value: "1" notify_on: 2 } }
            price_filters { field: 1 operator: 2 values: "p=1" values: "p 2" }
        }
        thresholds { value: "5" code: "c" severity: 2 notify_on: 1 notify_on: 2 resolve_value: "3" }
        thresholds { recurring_step: "7" }
        labels { key: "a" value: "b=c" } counts_held: true uniqueness_key: "k"
        """,
        alert_pb2.Alert(),
    )
    form: MultiDict[str] = MultiDict()

    def add(every: list[Input]) -> None:
        for one in every:
            if one.kind == "list":
                for index, item in enumerate(one.items):
                    form.add(f"{one.name}.{index}.is", "1")
                    add(item)
            elif one.kind == "choices":
                for value in sorted(one.value):
                    form.add(one.name, value)
            elif one.kind == "check":
                if one.value:
                    form.add(one.name, "1")
            elif one.kind == "group":
                add(one.children)
            else:
                form.add(one.name, str(one.value))
                if one.has_switch and one.is_set:
                    form.add(f"{one.name}.set", "1")
                add(one.children)

    add(inputs(sent))
    returned = alert_pb2.Alert()
    fill(returned, form)
    assert returned == sent


async def test_an_endpoint_is_added_tested_recovered_and_rotated(console: Stage) -> None:
    visitor = await console.visitor("admin")
    page = await visitor.get("/endpoints")
    [form] = [one for one in page.tree.all("form") if one.attributes["action"] == "/endpoints"]
    refused = await visitor.post("/endpoints", with_values(fields_of(form), url="ftp://example.com"))
    assert refused.status == 400
    assert refused.tree.all("p", id="url-problem")
    path = f"/endpoints/{console.made.endpoint_id}"
    page = await visitor.get(path)
    forms = {one.attributes["action"].rpartition("/")[2]: one for one in page.tree.all("form")}
    tested = await visitor.post(f"{path}/test", fields_of(forms["test"]))
    assert "The test event is on its way" in tested.main
    recovered = await visitor.post(f"{path}/recover", fields_of(forms["recover"]))
    assert "Recovery jobs" in recovered.main
    rotated = await visitor.post(f"{path}/rotate", fields_of(forms["rotate"]))
    assert rotated.tree.first("p", class_="secret").text.startswith("whsec_")
    assert "shown here only" in rotated.main
    keys = await visitor.get(path)
    assert "whsec_" not in keys.text
    assert keys.main.count("HMAC SHA-256") == 2
    for action, state in (("disable", "Disabled"), ("enable", "gets notifications again")):
        page = await visitor.get(path)
        [form] = [one for one in page.tree.all("form") if one.attributes["action"].endswith(f"/{action}")]
        assert state in (await visitor.post(f"{path}/{action}", fields_of(form))).main


async def test_a_notification_is_sent_again_and_its_attempts_are_shown(console: Stage) -> None:
    visitor = await console.visitor("editor")
    listed = await visitor.get("/notifications?customer=acme&type=1")
    path = next(one.attributes["href"] for one in listed.tree.all("a") if "/ntf_" in one.attributes["href"])
    page = await showing(visitor, path, "thank you")
    forms = [one for one in page.tree.all("form") if one.attributes["action"].endswith("/redeliver")]
    form = next(one for one in forms if ("endpoint_id", console.made.endpoint_id) in fields_of(one))
    done = await visitor.post(form.attributes["action"], fields_of(form))
    assert "is sent again now" in done.main
    await showing(visitor, path, "manual")
    link = next(one.attributes["href"] for one in page.tree.all("a") if "/deliveries/" in one.attributes["href"])
    assert "Attempts" in (await visitor.get(link)).main
    failing = await visitor.get(f"/endpoints/{console.made.failing_endpoint_id}")
    assert "Failing" in failing.main
    assert "1 endpoint fails" in (await visitor.get("/overview/live")).text
