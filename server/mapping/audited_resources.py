"""Resources as entries of the audit log keep them: messages of the contract, without secrets and derived values."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from generated.tidemark.v1 import (
    alert_exclusion_pb2,
    alert_pb2,
    audit_entry_pb2,
    balance_pb2,
    customer_pb2,
    delivery_pb2,
    endpoint_pb2,
    erasure_job_pb2,
    invoice_pb2,
    limit_pb2,
    metric_pb2,
    plan_pb2,
    recharge_pb2,
    redelivery_job_pb2,
    subscription_pb2,
    usage_pb2,
)
from server.calls.current_call import current_cause
from store.audit.entries import Changed, NewEntry, ResourceType

MAX_STATE_BYTES = 16 * 1024  # of a resource before or after a change; larger ones are abridged
MAX_ABRIDGED_TEXT = 256  # characters of a field of an abridged resource
HIDDEN = "(hidden)"

_Id = Callable[[Any], str]
Stored = TypeVar("Stored")
Shown = TypeVar("Shown", bound=Message)


@dataclass(frozen=True)
class _Kind:
    """How a message is kept: in which field of AuditedResource, and where its ids are. derived: is left out."""

    field: str
    resource_type: ResourceType
    resource_id: _Id
    customer_id: _Id = lambda message: ""
    derived: tuple[str, ...] = ()


def _customer_id(message: Any) -> str:
    return str(message.customer_id)


def _of_scope(alert: alert_pb2.Alert) -> str:
    case = alert.scope.WhichOneof("target")
    return "" if case is None else getattr(getattr(alert.scope, case), "customer_id", "")


_KINDS: dict[type[Message], _Kind] = {
    alert_pb2.Alert: _Kind(
        "alert", ResourceType.ALERT, lambda message: message.alert_id, _of_scope, ("evaluation_status",)
    ),
    customer_pb2.Customer: _Kind(
        "customer", ResourceType.CUSTOMER, _customer_id, _customer_id, ("current_billing_period",)
    ),
    subscription_pb2.Subscription: _Kind(
        "subscription",
        ResourceType.SUBSCRIPTION,
        lambda message: message.subscription_id,
        _customer_id,
        ("current_billing_period",),
    ),
    metric_pb2.Metric: _Kind("metric", ResourceType.METRIC, lambda message: message.metric_id),
    plan_pb2.Plan: _Kind("plan", ResourceType.PLAN, lambda message: message.plan_id),
    limit_pb2.Limit: _Kind(
        "limit", ResourceType.LIMIT, lambda message: message.limit_id, lambda message: message.customer.customer_id
    ),
    balance_pb2.Balance: _Kind("balance", ResourceType.BALANCE, lambda message: message.balance_id, _customer_id),
    recharge_pb2.RechargePolicy: _Kind(
        "recharge_policy",
        ResourceType.RECHARGE_POLICY,
        lambda message: message.balance_id,
        _customer_id,
        ("open_recharge_id", "wait_reason", "wait_end_time"),
    ),
    recharge_pb2.Recharge: _Kind(
        "recharge", ResourceType.RECHARGE, lambda message: message.recharge_id, _customer_id
    ),
    invoice_pb2.Invoice: _Kind("invoice", ResourceType.INVOICE, lambda message: message.invoice_id, _customer_id),
    usage_pb2.UsageEvent: _Kind(
        "usage_event", ResourceType.USAGE_EVENT, lambda message: message.event_id, _customer_id
    ),
    erasure_job_pb2.ErasureJob: _Kind(
        "erasure_job", ResourceType.ERASURE_JOB, lambda message: message.job_id, _customer_id
    ),
    endpoint_pb2.Endpoint: _Kind(
        "endpoint", ResourceType.ENDPOINT, lambda message: message.endpoint_id, derived=("health",)
    ),
    delivery_pb2.Delivery: _Kind(
        "delivery", ResourceType.DELIVERY, lambda message: message.delivery_id, _customer_id
    ),
    redelivery_job_pb2.RedeliveryJob: _Kind(
        "redelivery_job", ResourceType.REDELIVERY_JOB, lambda message: message.job_id
    ),
}

# Fields that every change sets, and numbers that follow from the change.
_OF_EVERY_CHANGE = frozenset({"as_of_time", "update_time", "version", "etag"})


def changed(
    before: Message | None, after: Message | None, *, customer_id: str = "", hidden: Sequence[str] = ()
) -> Changed:
    """What a change did to a resource. One of before and after is None if the change created or deleted it.

    customer_id: of the change, if the resource does not say it. hidden: fields that changed, whose
    values the messages do not show.
    """
    known = after if after is not None else before
    assert known is not None
    kind = _KINDS[type(known)]
    states = [None if one is None else _shown(kind, one) for one in (before, after)]
    encoded = [None if one is None else one.SerializeToString() for one in states]
    abridged = any(one is not None and len(one) > MAX_STATE_BYTES for one in encoded)
    if abridged:
        hidden = (*hidden, *changed_fields(*states))
        encoded = [None if one is None else _abridged(kind, one).SerializeToString() for one in states]
    return Changed(
        kind.resource_type,
        kind.resource_id(known),
        customer_id or kind.customer_id(known),
        encoded[0],
        encoded[1],
        tuple(hidden),
        abridged,
    )


def of_alert(
    before: alert_exclusion_pb2.AlertExclusion | None,
    after: alert_exclusion_pb2.AlertExclusion | None,
    alert_id: str,
    customer_id: str,
) -> Changed:
    """A change of an alert for one customer: of its exclusion, or of its state if both are None."""
    states = [
        None if one is None else audit_entry_pb2.AuditedResource(alert_exclusion=one).SerializeToString()
        for one in (before, after)
    ]
    return Changed(ResourceType.ALERT, alert_id, customer_id, states[0], states[1])


class Describing(Generic[Stored, Shown]):
    """Makes entries of changes by the current call, also when the call is not current any more.

    The answer shows the same messages, so each is made once.
    """

    def __init__(self, message_of: Callable[[Stored], Shown]) -> None:
        """message_of: the message for what is stored."""
        self._message_of = message_of
        self._cause = current_cause()
        self._last: tuple[Stored, Shown] | None = None

    def __call__(self, before: Stored | None, after: Stored) -> NewEntry:
        """The entry of a change from what was stored before and after it."""
        self._last = after, (shown := self._message_of(after))
        return NewEntry(self._cause, changed(None if before is None else self._message_of(before), shown))

    def message(self, stored: Stored) -> Shown:
        """The message for what is stored."""
        if self._last is not None and self._last[0] is stored:
            return self._last[1]
        return self._message_of(stored)


def deletion(message: Message) -> NewEntry:
    """The entry of a resource that the current call deletes."""
    return NewEntry(current_cause(), changed(message, None))


def read_state(state: bytes) -> audit_entry_pb2.AuditedResource:
    """The resource in a stored state."""
    if state.startswith(b"{"):
        return json_format.Parse(state, audit_entry_pb2.AuditedResource(), ignore_unknown_fields=True)
    return audit_entry_pb2.AuditedResource.FromString(state)


def changed_fields(
    before: audit_entry_pb2.AuditedResource | None, after: audit_entry_pb2.AuditedResource | None
) -> list[str]:
    """The fields that differ, in the order of their numbers; none if there was no resource before or after."""
    if before is None or after is None or (case := after.WhichOneof("resource")) != before.WhichOneof("resource"):
        return []
    if case is None:
        return []
    values = [dict(_values(getattr(one, case))) for one in (before, after)]
    fields = sorted({*values[0], *values[1]}, key=lambda field: field.number)
    return [
        field.name
        for field in fields
        if field.name not in _OF_EVERY_CHANGE and values[0].get(field) != values[1].get(field)
    ]


def _values(message: Message) -> Sequence[tuple[FieldDescriptor, Any]]:
    return message.ListFields()


def _shown(kind: _Kind, message: Message) -> audit_entry_pb2.AuditedResource:
    shown = audit_entry_pb2.AuditedResource()
    getattr(shown, kind.field).CopyFrom(message)
    for name in kind.derived:
        getattr(shown, kind.field).ClearField(name)
    if kind.field == "endpoint":
        headers = shown.endpoint.headers
        for name in list(headers):
            headers[name] = HIDDEN
    return shown


def _abridged(kind: _Kind, shown: audit_entry_pb2.AuditedResource) -> audit_entry_pb2.AuditedResource:
    """The short fields of a resource."""
    short = audit_entry_pb2.AuditedResource()
    target = getattr(short, kind.field)
    target.SetInParent()
    for field, value in _values(getattr(shown, kind.field)):
        if field.is_repeated or field.message_type is not None:
            continue
        if not isinstance(value, str | bytes) or len(value) <= MAX_ABRIDGED_TEXT:
            setattr(target, field.name, value)
    return short
