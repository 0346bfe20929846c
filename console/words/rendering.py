"""The templates: their environment, filters and the addresses of static files."""

import hashlib
import secrets
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from google.protobuf.timestamp_pb2 import Timestamp
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from console.words import alerts, amounts, gauges, names, times
from generated.tidemark.v1 import (
    alert_change_pb2,
    alert_pb2,
    balance_pb2,
    customer_alert_pb2,
    decision_pb2,
    delivery_pb2,
    endpoint_pb2,
    explanation_pb2,
    invoice_pb2,
    limit_pb2,
    limit_window_pb2,
    overage_pb2,
    redelivery_job_pb2,
    reservation_pb2,
    role_pb2,
    threshold_pb2,
)

FOLDER = Path(__file__).parents[1]
STATIC = FOLDER / "static"

_ENUMS = {
    "alert_state": alert_pb2.AlertState,
    "evaluation_status": alert_pb2.EvaluationStatus,
    "change_kind": alert_change_pb2.AlertChangeKind,
    "balance_kind": balance_pb2.BalanceKind,
    "customer_status": customer_alert_pb2.CustomerAlertStatus,
    "change_reason": customer_alert_pb2.ChangeReason,
    "disabled_reason": customer_alert_pb2.CustomerAlertDisabledReason,
    "decision_outcome": decision_pb2.DecisionOutcome,
    "overage_policy": decision_pb2.UsageOveragePolicy,
    "delivery_status": delivery_pb2.DeliveryStatus,
    "attempt_outcome": delivery_pb2.AttemptOutcome,
    "trigger": delivery_pb2.DeliveryTrigger,
    "endpoint_state": endpoint_pb2.EndpointState,
    "disable_reason": endpoint_pb2.DisableReason,
    "breaker_state": endpoint_pb2.BreakerState,
    "signature_scheme": endpoint_pb2.SignatureScheme,
    "explanation_check": explanation_pb2.ExplanationCheck,
    "explanation_reason": explanation_pb2.ExplanationReason,
    "endpoint_outcome": explanation_pb2.EndpointOutcome,
    "invoice_status": invoice_pb2.InvoiceStatus,
    "enforcement": limit_pb2.LimitEnforcement,
    "calendar_unit": limit_window_pb2.CalendarUnit,
    "overage": overage_pb2.OveragePolicy,
    "redelivery_state": redelivery_job_pb2.RedeliveryState,
    "redelivery_kind": redelivery_job_pb2.RedeliveryKind,
    "reservation_state": reservation_pb2.ReservationState,
    "role": role_pb2.Role,
    "severity": threshold_pb2.Severity,
    "transition_kind": threshold_pb2.TransitionKind,
}


def environment() -> Environment:
    """The environment of all templates. A name that a template misspells is an error."""
    found = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= {
        "grouped": amounts.grouped,
        "moment": _moment,
        "ago": _ago,
        "event_type": names.event_type_name,
        "condition": names.condition_words,
        "words": names.words_of,
        "singular": _singular,
        "sentence": alerts.sentence,
        "scope_words": alerts.scope_words,
        "measured": gauges.measured,
        "where": gauges.where,
        "duration": lambda value: times.duration(value.ToTimedelta()),
    }
    found.filters |= {name: partial(names.enum_words, wrapper.DESCRIPTOR) for name, wrapper in _ENUMS.items()}
    found.globals |= {
        "static": _addresses_of_files(),
        "link": link,
        "new_id": partial(secrets.token_hex, 16),
        "unit_of": gauges.unit_of,
        "alert_unit": alerts.unit_of,
        "threshold_words": alerts.threshold_words,
        "threshold_details": alerts.threshold_details,
        "money": amounts.money,
        "with_unit": amounts.with_unit,
        "period": lambda one, zone="UTC": times.period(times.at(one.start_time), times.at(one.end_time), zone),
        "access_value": access_value,
    }
    return found


def link(path: str, **query: Any) -> str:
    """An address with a query, without the parameters that are empty."""
    given = {name: value for name, value in query.items() if value not in ("", None)}
    return f"{quote(path)}?{urlencode(given, doseq=True)}" if given else quote(path)


def access_value(access: Any, text: str) -> str:
    """An amount with the unit of something that has `spend` or `quantity`."""
    if access.WhichOneof("access") == "quantity":
        return amounts.with_unit(text, access.quantity.metric_id)
    return amounts.money(text, access.spend.currency)


def _singular(label: str) -> str:
    """Thresholds: Threshold. Entries: Entry. The name of one element of a list."""
    if label.endswith("ies"):
        return f"{label[:-3]}y"
    return label[:-1] if label.endswith("s") else label


def _datetime(time: Timestamp | datetime) -> datetime:
    return times.at(time) if isinstance(time, Timestamp) else time


def _moment(time: Timestamp | datetime, zone: str = "UTC") -> Markup:
    """A time with its zone; the exact time is in the title."""
    moment = _datetime(time)
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(
        times.shown_exactly(moment), escape(times.shown(moment, zone))
    )


def _ago(time: Timestamp | datetime, now: datetime) -> Markup:
    """How long ago it was; the time is in the title."""
    moment = _datetime(time)
    return Markup('<time datetime="{0}" title="{1}">{2}</time>').format(
        times.shown_exactly(moment), escape(times.shown(moment)), escape(times.distance(moment, now))
    )


def _addresses_of_files() -> dict[str, str]:
    """The address of each static file, with a digest: a new version has another address."""
    found = {}
    for path in sorted(STATIC.iterdir()):
        if path.is_file() and not path.name.endswith(".txt"):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            found[path.name] = f"/static/{digest}/{path.name}"
    return found
