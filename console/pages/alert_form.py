"""The forms that create and change an alert, with a preview of what the alert would say now."""

import secrets
from collections.abc import Sequence
from typing import Any

import grpc
from aiohttp import web
from google.protobuf.field_mask_pb2 import FieldMask

from console.access.api import ApiError, Violation
from console.access.visit import Visit, see_other
from console.forms.parsing import act, fill, name_of
from console.forms.tree import Input, inputs, item_count, visit
from console.words import alerts as alert_words
from console.words.gauges import unit_of
from console.words.rendering import link
from generated.tidemark.v1 import alert_pb2, explanation_pb2
from generated.tidemark.v1.account_service_pb2 import ListCustomersRequest
from generated.tidemark.v1.alert_service_pb2 import (
    STATE_POLICY_KEEP,
    STATE_POLICY_RESET,
    CreateAlertRequest,
    GetAlertRequest,
    PreviewAlertRequest,
    UpdateAlertRequest,
)

MOST_ITEMS = 300  # thresholds and the like of one form

# What can be changed after the creation, of all alerts and of some conditions.
EDITABLE = ("display_name", "thresholds", "labels")
EDITABLE_OF = {"cost_exceeded": ("threshold_overrides", "price_filters"), "spend_exceeded": ("price_filters",)}
_REFUSED = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


class TooLarge(Exception):
    """The alert has so many thresholds that its form would be of no use, and would keep the process busy."""


async def new(visitor: Visit) -> web.StreamResponse:
    """An empty form."""
    alert = alert_pb2.Alert()
    customer_id = visitor.query("customer")
    if customer_id:
        alert.scope.customer.customer_id = customer_id
    else:
        alert.scope.all_customers.SetInParent()
    alert.usage_threshold_reached.SetInParent()
    alert.thresholds.add()
    return await _form(visitor, alert, None, customer_id=customer_id)


async def create(visitor: Visit) -> web.StreamResponse:
    """What a posted form asks for: another form, a preview, or the alert."""
    alert = alert_pb2.Alert()
    fill(alert, visitor.form)
    action = visitor.sent("action")
    if action != "save":
        act(alert, action)
        return await _form(
            visitor, alert, None, previews=action == "preview", customer_id=visitor.sent("preview_customer")
        )
    request = CreateAlertRequest(alert=alert, request_id=visitor.sent("request_id"))
    if visitor.sent("quietly") == "1":
        request.evaluate_on_create = False
    try:
        answer = await visitor.calls(visitor.api.alerts.CreateAlert, request)
    except ApiError as error:
        if error.code not in _REFUSED:
            raise
        return await _form(visitor, alert, None, error=error, customer_id=visitor.sent("preview_customer"))
    return see_other(link(f"/alerts/{answer.alert.alert_id}", done="created"))


async def edit(visitor: Visit) -> web.StreamResponse:
    """The form of an alert that exists."""
    alert = await _stored(visitor)
    return await _form(visitor, alert, alert)


async def update(visitor: Visit) -> web.StreamResponse:
    """What the posted form of an alert that exists asks for."""
    stored, sent = await _stored(visitor), alert_pb2.Alert()
    fill(sent, visitor.form)
    action, customer_id = visitor.sent("action"), visitor.sent("preview_customer")
    if action != "save":
        act(sent, action)
        return await _form(visitor, sent, stored, previews=action == "preview", customer_id=customer_id)
    try:
        await visitor.calls(visitor.api.alerts.UpdateAlert, _update_request(visitor, stored, sent))
    except ApiError as error:
        if error.code not in _REFUSED:
            raise
        return await _form(visitor, sent, stored, error=error, customer_id=customer_id)
    return see_other(link(f"/alerts/{stored.alert_id}", done="updated"))


async def _stored(visitor: Visit) -> alert_pb2.Alert:
    request = GetAlertRequest(alert_id=visitor.request.match_info["alert_id"])
    found: alert_pb2.Alert = (await visitor.calls(visitor.api.alerts.GetAlert, request)).alert
    return found


def _update_request(visitor: Visit, stored: alert_pb2.Alert, sent: alert_pb2.Alert) -> UpdateAlertRequest:
    case = alert_words.condition_of(stored)[0]
    paths = [*EDITABLE, *(f"{case}.{name}" for name in EDITABLE_OF.get(case, ()))]
    alert = alert_pb2.Alert()
    alert.CopyFrom(sent)
    alert.alert_id, alert.etag = stored.alert_id, visitor.sent("etag") or stored.etag
    policy = STATE_POLICY_RESET if visitor.sent("reset") == "1" else STATE_POLICY_KEEP
    return UpdateAlertRequest(alert=alert, update_mask=FieldMask(paths=paths), state_policy=policy)


def _changed(stored: alert_pb2.Alert, sent: alert_pb2.Alert) -> alert_pb2.Alert:
    """The stored alert with what can be changed taken from `sent`."""
    alert = alert_pb2.Alert()
    alert.CopyFrom(stored)
    for name in EDITABLE:
        alert.ClearField(name)  # type: ignore[arg-type]
    alert.display_name = sent.display_name
    alert.thresholds.extend(sent.thresholds)
    alert.labels.update(sent.labels)
    case = alert_words.condition_of(stored)[0]
    for name in EDITABLE_OF.get(case, ()):
        getattr(alert, case).ClearField(name)
        getattr(getattr(alert, case), name).extend(getattr(getattr(sent, case), name))
    return alert


def inputs_of(alert: alert_pb2.Alert, stored: alert_pb2.Alert | None) -> list[Input]:
    """The inputs of the form, in its order. stored: of the form that changes an alert."""
    if stored is None:
        return [one for one in inputs(alert) if one.name != "state"]
    found = inputs(alert, only=EDITABLE)
    case = alert_words.condition_of(stored)[0]
    names = EDITABLE_OF.get(case, ())
    if names:
        found += inputs(getattr(alert, case), f"{case}.", only=names)
    return found


async def _form(
    visitor: Visit,
    alert: alert_pb2.Alert,
    stored: alert_pb2.Alert | None,
    *,
    previews: bool = False,
    error: ApiError | None = None,
    customer_id: str = "",
) -> web.StreamResponse:
    """The form, or with a script only its content. Raises TooLarge, and ApiError for a key that may not save it."""
    if not visitor.viewer.may_edit:
        raise ApiError(grpc.StatusCode.PERMISSION_DENIED, "The form of an alert needs a key with the role EDITOR.")
    if item_count(alert) > MOST_ITEMS:
        raise TooLarge
    whole = alert if stored is None else _changed(stored, alert)
    problems: Sequence[Violation] = () if error is None else error.violations
    preview: dict[str, Any] | None = None
    if previews:
        customer_id = customer_id or await _some_customer(visitor, whole)
        preview, problems, error = await _preview(visitor, whole, alert, stored, customer_id)
    fields = inputs_of(alert, stored)
    wrong, others = _by_input(problems, fields)
    if error is not None and not problems:
        others = [error.message]
    is_new = stored is None
    return visitor.render(
        "alert_form_body.html" if visitor.is_fragment else "alert_form.html",
        status=200 if error is None or visitor.is_fragment else 400,
        stored=stored,
        fields=fields,
        wrong=wrong,
        others=others,
        words=alert_words.sentence(whole),
        preview=preview,
        preview_customer=customer_id,
        request_id=(visitor.sent("request_id") or secrets.token_hex(16)) if is_new else "",
        etag="" if stored is None else (visitor.sent("etag") or stored.etag),
        path="/alerts/new" if stored is None else f"/alerts/{stored.alert_id}/edit",
        quietly=visitor.sent("quietly") == "1",
        reset=visitor.sent("reset") == "1",
        case=alert_words.condition_of(whole)[0],
    )


async def _some_customer(visitor: Visit, alert: alert_pb2.Alert) -> str:
    """A customer that the alert covers, if there is one."""
    scope = alert.scope
    target = scope.WhichOneof("target")
    if target in ("customer", "subscription", "customer_plan"):
        return str(getattr(scope, target).customer_id)
    request = ListCustomersRequest(page_size=1, plan_id=scope.plan.plan_id if target == "plan" else "")
    answer = await visitor.calls(visitor.api.accounts.ListCustomers, request)
    return answer.customers[0].customer_id if answer.customers else ""


async def _preview(
    visitor: Visit, whole: alert_pb2.Alert, sent: alert_pb2.Alert, stored: alert_pb2.Alert | None, customer_id: str
) -> tuple[dict[str, Any] | None, Sequence[Violation], ApiError | None]:
    """What the alert would say about a customer; or what is wrong with it."""
    alerts = visitor.api.alerts
    try:
        if stored is None:
            checked = await visitor.calls(alerts.CreateAlert, CreateAlertRequest(alert=whole, validate_only=True))
        else:
            request = _update_request(visitor, stored, sent)
            request.validate_only = True
            checked = await visitor.calls(alerts.UpdateAlert, request)
    except ApiError as error:
        if error.code not in (*_REFUSED, grpc.StatusCode.PERMISSION_DENIED):
            raise
        return None, error.violations, error
    found: dict[str, Any] = {"warnings": checked.warnings, "explanation": None, "unknown": "", "gauges": []}
    if customer_id:
        wanted = PreviewAlertRequest(alert=whole, customer_id=customer_id)
        try:
            answer = await visitor.optional(visitor.calls(alerts.PreviewAlert, wanted))
        except ApiError as error:
            if not error.is_missing:
                raise
            found["unknown"] = error.message
        else:
            found["explanation"] = None if answer is None else answer.explanation
            if answer is not None:
                found["gauges"] = [_outlook(one) for one in answer.explanation.gauges]
    return found, (), None


def _outlook(gauge: explanation_pb2.GaugeExplanation) -> tuple[Any, list[str], list[str]]:
    """A gauge, the thresholds that its value is at or beyond already, and how far the others are."""
    unit = unit_of(gauge.gauge)
    reached, ahead = [], []
    for one in gauge.thresholds:
        if not one.level or not gauge.gauge.value:
            continue
        words = alert_words.threshold_words(one.state.threshold, unit)
        if one.state.threshold.percent_of_limit:
            words = f"{words}: {unit(one.level)}"
        if one.distance:
            ahead.append(f"{words}, {unit(one.distance)} away")
        else:
            reached.append(words)
    return gauge, reached, ahead


def _by_input(problems: Sequence[Violation], fields: list[Input]) -> tuple[dict[str, list[str]], list[str]]:
    """What is wrong by the names of inputs, and what belongs to none."""
    known: set[str] = set()
    visit(fields, lambda one: known.add(one.name))
    wrong: dict[str, list[str]] = {}
    others = []
    for problem in problems:
        name = name_of(problem.path, "alert")
        if name in known:
            wrong.setdefault(name, []).append(problem.description)
        else:
            others.append(f"{problem.path.removeprefix('alert.')}: {problem.description}")
    return wrong, others
