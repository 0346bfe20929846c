"""Usage that is asked for, as messages of the contract, and the checks of what callers send."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from evaluator.amounts import ZERO, format_decimal
from evaluator.enforcement.usage import Usage
from evaluator.routing import FUTURE_TOLERANCE
from generated.tidemark.v1 import requested_usage_pb2
from server.calls.validation import MAX_ID_LENGTH, Violations, id_problem, shared_timestamp

MAX_PROPERTIES = 64
MAX_PROPERTY_LENGTH = 256  # characters of a value

RequestedUsage = requested_usage_pb2.RequestedUsage


@dataclass(frozen=True, slots=True)
class UsageBounds:
    """Which times of usage are accepted. retention: how long events are kept. now: the time of the service."""

    now: datetime
    retention: timedelta

    def check(self, violations: Violations, path: str, time: datetime) -> None:
        """Adds a violation if the time is out of bounds."""
        if time > self.now + FUTURE_TOLERANCE:
            minutes = FUTURE_TOLERANCE // timedelta(minutes=1)
            violations.add(path, f"it is more than {minutes} minutes after the time of the service")
        elif time <= self.now - self.retention:
            violations.add(path, f"events are kept for {self.retention.days} days, and it is longer ago")


def read_usage(violations: Violations, path: str, sent: RequestedUsage, bounds: UsageBounds) -> Usage:
    """The usage that a request names."""
    time = None
    if sent.HasField("event_time"):
        time = violations.time(f"{path}.event_time", sent.event_time)
        bounds.check(violations, f"{path}.event_time", time)
    cost, currency = _read_price(violations, path, sent)
    return Usage(
        violations.identifier(f"{path}.customer_id", sent.customer_id),
        violations.identifier(f"{path}.metric_id", sent.metric_id),
        read_amount(violations, f"{path}.quantity", sent.quantity),
        cost,
        currency,
        violations.identifier(f"{path}.subscription_id", sent.subscription_id, required=False) or None,
        _read_properties(violations, f"{path}.properties", sent.properties),
        time,
    )


@dataclass(frozen=True, slots=True)
class UsageTemplate:
    """What is checked for several customers. properties: by ascending key."""

    metric_id: str
    quantity: Decimal
    cost: Decimal | None
    currency: str | None
    properties: tuple[tuple[str, str], ...]

    def of(self, customer_id: str) -> Usage:
        """The usage of a customer, now."""
        return Usage(
            customer_id, self.metric_id, self.quantity, self.cost, self.currency, None, dict(self.properties), None
        )


def read_template(violations: Violations, path: str, sent: requested_usage_pb2.CheckedUsage) -> UsageTemplate:
    """What a request checks for each of its customers."""
    cost, currency = _read_price(violations, path, sent)
    properties = _read_properties(violations, f"{path}.properties", sent.properties)
    return UsageTemplate(
        violations.identifier(f"{path}.metric_id", sent.metric_id),
        read_amount(violations, f"{path}.quantity", sent.quantity),
        cost,
        currency,
        tuple(sorted(properties.items())),
    )


def read_customers(violations: Violations, path: str, sent: Sequence[str], most: int) -> list[str]:
    """The customers that a request names: at least one, each once."""
    customer_ids = list(sent)
    _check_number(violations, path, len(customer_ids), most)
    seen = set[str]()
    for index, customer_id in enumerate(customer_ids[:most]):
        violations.identifier(f"{path}[{index}]", customer_id)
        if customer_id in seen:
            violations.add(f"{path}[{index}]", f"{customer_id[:MAX_ID_LENGTH]!r} was named before")
        seen.add(customer_id)
    return customer_ids


def read_templates(
    violations: Violations, path: str, sent: Sequence[requested_usage_pb2.CheckedUsage], most: int
) -> list[UsageTemplate]:
    """What a request checks for each of its customers: at least one usage."""
    _check_number(violations, path, len(sent), most)
    return [read_template(violations, f"{path}[{index}]", one) for index, one in enumerate(sent[:most])]


def read_amount(violations: Violations, path: str, text: str) -> Decimal:
    """An amount that is not negative."""
    amount = violations.decimal(path, text)
    if amount < ZERO:
        violations.add(path, "it is negative")
    return amount


def write_usage(shown: RequestedUsage, usage: Usage) -> None:
    """Fills in the message for a usage, which may be a part of another one."""
    shown.customer_id = usage.customer_id
    shown.metric_id = usage.metric_id
    shown.quantity = format_decimal(usage.quantity)
    if usage.subscription_id is not None:
        shown.subscription_id = usage.subscription_id
    if usage.cost is not None:
        shown.cost = format_decimal(usage.cost)
    if usage.currency is not None:
        shown.currency = usage.currency
    if usage.event_time is not None:
        shown.event_time.CopyFrom(shared_timestamp(usage.event_time))
    if usage.properties:
        shown.properties.update(usage.properties)


def _read_price(
    violations: Violations, path: str, sent: RequestedUsage | requested_usage_pb2.CheckedUsage
) -> tuple[Decimal | None, str | None]:
    """Cost and currency."""
    cost = read_amount(violations, f"{path}.cost", sent.cost) if sent.cost else None
    if sent.currency and cost is None:
        violations.add(f"{path}.currency", "it is set without a cost")
    return cost, violations.currency(f"{path}.currency", sent.currency, default="") or None


def _read_properties(violations: Violations, path: str, sent: Mapping[str, str]) -> dict[str, str]:
    """dict() of a protobuf map, even of an empty one, takes as long as reading all other fields."""
    if not sent:
        return {}
    if len(sent) > MAX_PROPERTIES:
        violations.add(path, f"there are {len(sent)}; usage has at most {MAX_PROPERTIES}")
        return {}
    for key in sent:
        if (problem := id_problem(key)) is not None:
            violations.add(path, f"the key {key[:MAX_ID_LENGTH]!r}: {problem}")
        violations.text(f"{path}[{key[:MAX_ID_LENGTH]!r}]", sent[key], max_length=MAX_PROPERTY_LENGTH)
    return {key: sent[key] for key in sent}


def _check_number(violations: Violations, path: str, number: int, most: int) -> None:
    if not number:
        violations.add(path, "it is required")
    elif number > most:
        violations.add(path, f"there are {number}; at most {most} are allowed")
