"""Balances and their ledger as messages of the contract, and the checks of what callers send."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from evaluator.amounts import ZERO, exact_arithmetic, format_decimal
from evaluator.balances import BalanceKind, Seat, Unit
from generated.tidemark.v1 import (
    access_pb2,
    account_service_pb2,
    balance_pb2,
    overage_pb2,
)
from server.calls.validation import Violations, to_timestamp
from server.mapping.custom_fields import read_custom_fields
from store.balances.balances import BalanceFact, SegmentFact, StoredBalance, StoredSegment
from store.balances.decrements import Decrement

MAX_SEGMENTS = 1000  # of one balance
MAX_DRAW_DOWN_METRICS = 100  # of one balance
MAX_DECREMENTED_BALANCES = 100  # that one decrement names
MAX_SEAT_LENGTH = 256  # characters

_KINDS = {
    BalanceKind.COMMIT: balance_pb2.BALANCE_KIND_COMMIT,
    BalanceKind.CONTRACT_CREDIT: balance_pb2.BALANCE_KIND_CONTRACT_CREDIT,
    BalanceKind.CREDIT_GRANT: balance_pb2.BALANCE_KIND_CREDIT_GRANT,
    BalanceKind.SEAT_CREDIT: balance_pb2.BALANCE_KIND_SEAT_CREDIT,
    BalanceKind.LICENSE_ALLOTMENT: balance_pb2.BALANCE_KIND_LICENSE_ALLOTMENT,
}


def read_balance(violations: Violations, path: str, sent: balance_pb2.Balance, now: datetime) -> BalanceFact:
    """The balance that was sent. Raises InvalidArgument."""
    customer_id = violations.identifier(f"{path}.customer_id", sent.customer_id)
    balance_id = violations.identifier(f"{path}.balance_id", sent.balance_id)
    display_name = violations.text(f"{path}.display_name", sent.display_name)
    kind = _read_kind(violations, f"{path}.kind", sent.kind)
    currency, metric_id = _read_access(violations, f"{path}.", sent)
    cost_basis = _read_cost_basis(violations, f"{path}.cost_basis", sent.cost_basis)
    contract_id = violations.identifier(f"{path}.contract_id", sent.contract_id, required=False) or None
    of_contract = read_custom_fields(violations, f"{path}.contract_custom_fields", sent.contract_custom_fields)
    custom_fields = read_custom_fields(violations, f"{path}.custom_fields", sent.custom_fields)
    grant_type = _read_grant_type(violations, f"{path}.credit_grant_type", sent.credit_grant_type, kind)
    seat = _read_seat(violations, f"{path}.seat", sent, kind)
    license_type = _read_license_type(violations, f"{path}.license_type", sent.license_type, kind)
    if sent.allow_overage and not sent.draw_down:
        violations.add(f"{path}.allow_overage", "only a balance with draw_down has it")
    metric_ids = _read_draw_down_metrics(violations, f"{path}.draw_down_metric_ids", sent)
    segments = _read_segments(violations, f"{path}.segments", sent.segments)
    as_of_time = now
    if sent.HasField("as_of_time"):
        as_of_time = violations.past_time(f"{path}.as_of_time", sent.as_of_time, now)
    violations.raise_if_any()
    assert kind is not None, "a balance without a kind is refused"
    return BalanceFact(
        customer_id=customer_id,
        balance_id=balance_id,
        kind=kind,
        currency=currency,
        metric_id=metric_id,
        priority=sent.priority,
        contract_id=contract_id,
        contract_custom_fields=of_contract,
        custom_fields=custom_fields,
        credit_grant_type=grant_type,
        seat=seat,
        license_type=license_type,
        draw_down=sent.draw_down,
        allow_overage=sent.allow_overage,
        draw_down_metric_ids=metric_ids,
        segments=segments,
        as_of_time=as_of_time,
        display_name=display_name,
        cost_basis=cost_basis,
    )


def read_kinds(
    violations: Violations, path: str, sent: Sequence[balance_pb2.BalanceKind.ValueType]
) -> tuple[BalanceKind, ...]:
    """The kinds of a filter, each once, in an order of their own."""
    found = {_read_kind(violations, f"{path}[{index}]", number) for index, number in enumerate(sent)}
    return tuple(sorted(kind for kind in found if kind is not None))


def balance_message(balance: StoredBalance, now: datetime) -> balance_pb2.Balance:
    """The message for a balance, with what its segments that are active at `now` come to."""
    fact = balance.fact
    active = balance.active(now)
    return balance_pb2.Balance(
        balance_id=fact.balance_id,
        customer_id=fact.customer_id,
        display_name=fact.display_name,
        kind=_KINDS[fact.kind],
        spend=None if fact.currency is None else access_pb2.SpendAccess(currency=fact.currency),
        quantity=None if fact.metric_id is None else access_pb2.QuantityAccess(metric_id=fact.metric_id),
        priority=fact.priority,
        cost_basis="" if fact.cost_basis is None else format_decimal(fact.cost_basis),
        contract_id=fact.contract_id or "",
        contract_custom_fields=fact.contract_custom_fields,
        custom_fields=fact.custom_fields,
        credit_grant_type=fact.credit_grant_type or "",
        seat=None if fact.seat is None else _seat_message(fact.seat),
        license_type=fact.license_type or "",
        draw_down=fact.draw_down,
        allow_overage=fact.allow_overage,
        draw_down_metric_ids=fact.draw_down_metric_ids,
        segments=[_segment_message(segment) for segment in balance.segments if not segment.removed],
        as_of_time=to_timestamp(fact.as_of_time),
        granted=format_decimal(_sum(segment.granted for segment in active)),
        remaining=format_decimal(_sum(segment.remaining for segment in active)),
        held=format_decimal(_sum(segment.held for segment in active)),
        void_time=None if balance.void_time is None else to_timestamp(balance.void_time),
        create_time=to_timestamp(balance.create_time),
        update_time=to_timestamp(balance.update_time),
    )


def _read_kind(violations: Violations, path: str, number: balance_pb2.BalanceKind.ValueType) -> BalanceKind | None:
    for kind, known in _KINDS.items():
        if known == number:
            return kind
    violations.add(path, f"there is no kind {number}" if number else "it is required")
    return None


def read_decrement(violations: Violations, sent: account_service_pb2.DecrementBalancesRequest) -> Decrement:
    """The decrement that was sent. Raises InvalidArgument."""
    customer_id = violations.identifier("customer_id", sent.customer_id)
    adjustment_id = violations.identifier("adjustment_id", sent.adjustment_id)
    currency, metric_id = _read_access(violations, "", sent)
    amount = violations.decimal("amount", sent.amount)
    if sent.amount and amount <= ZERO and not any(item.path == "amount" for item in violations.found):
        violations.add("amount", "it is not more than 0: give back with AdjustBalance")
    balance_ids = list(sent.balance_ids)
    if len(balance_ids) > MAX_DECREMENTED_BALANCES:
        violations.add("balance_ids", f"there are {len(balance_ids)}; at most {MAX_DECREMENTED_BALANCES} are taken")
    for index, balance_id in enumerate(balance_ids[:MAX_DECREMENTED_BALANCES]):
        violations.identifier(f"balance_ids[{index}]", balance_id)
        if balance_id in balance_ids[:index]:
            violations.add(f"balance_ids[{index}]", "it was named before")
    if sent.overage_policy not in overage_pb2.OveragePolicy.values():
        violations.add("overage_policy", f"there is no policy {sent.overage_policy}")
    custom_fields = read_custom_fields(violations, "custom_fields", sent.custom_fields)
    violations.raise_if_any()
    return Decrement(
        customer_id=customer_id,
        adjustment_id=adjustment_id,
        unit=Unit(currency, metric_id),
        amount=amount,
        balance_ids=tuple(sorted(balance_ids)),
        allow_overage=sent.overage_policy == overage_pb2.OVERAGE_POLICY_ALLOW,
        custom_fields=custom_fields,
    )


def _read_access(
    violations: Violations, prefix: str, sent: balance_pb2.Balance | account_service_pb2.DecrementBalancesRequest
) -> tuple[str | None, str | None]:
    """The currency, or the metric, of a balance or a decrement. prefix: of the paths of its fields."""
    match sent.WhichOneof("access"):
        case "spend":
            path = f"{prefix}spend.currency"
            if not sent.spend.currency:
                violations.add(path, "it is required")
            return violations.currency(path, sent.spend.currency, default=""), None
        case "quantity":
            return None, violations.identifier(f"{prefix}quantity.metric_id", sent.quantity.metric_id)
    violations.add(f"{prefix}access", "one of spend and quantity is required")
    return None, None


def _read_cost_basis(violations: Violations, path: str, sent: str) -> Decimal | None:
    if not sent:
        return None
    cost_basis = violations.decimal(path, sent)
    if cost_basis < ZERO:
        violations.add(path, "it is negative")
    return cost_basis


def _read_grant_type(violations: Violations, path: str, sent: str, kind: BalanceKind | None) -> str | None:
    grant_type = violations.identifier(path, sent, required=False)
    if grant_type and kind not in (BalanceKind.CREDIT_GRANT, None):
        violations.add(path, "only a CREDIT_GRANT has one")
    return grant_type or None


def _read_license_type(violations: Violations, path: str, sent: str, kind: BalanceKind | None) -> str | None:
    is_license = kind is BalanceKind.LICENSE_ALLOTMENT
    license_type = violations.identifier(path, sent, required=is_license)
    if license_type and not is_license and kind is not None:
        violations.add(path, "only a LICENSE_ALLOTMENT has one")
    return license_type or None


def _read_seat(violations: Violations, path: str, sent: balance_pb2.Balance, kind: BalanceKind | None) -> Seat | None:
    if not sent.HasField("seat"):
        if kind is BalanceKind.SEAT_CREDIT:
            violations.add(path, "it is required")
        return None
    if kind not in (BalanceKind.SEAT_CREDIT, None):
        violations.add(path, "only a SEAT_CREDIT has one")
    key = violations.identifier(f"{path}.seat_group_key", sent.seat.seat_group_key)
    value = sent.seat.seat_group_value
    if not value:
        violations.add(f"{path}.seat_group_value", "it is required")
    violations.text(f"{path}.seat_group_value", value, max_length=MAX_SEAT_LENGTH)
    return Seat(key, value)


def _read_draw_down_metrics(violations: Violations, path: str, sent: balance_pb2.Balance) -> tuple[str, ...]:
    """The metrics whose usage draws on the balance, in an order of their own."""
    metric_ids = list(sent.draw_down_metric_ids)
    if metric_ids and not (sent.draw_down and sent.HasField("spend")):
        violations.add(path, "only a balance held in money with draw_down has them")
    if len(metric_ids) > MAX_DRAW_DOWN_METRICS:
        violations.add(path, f"there are {len(metric_ids)}; at most {MAX_DRAW_DOWN_METRICS} are kept")
        return ()
    for index, metric_id in enumerate(metric_ids):
        violations.identifier(f"{path}[{index}]", metric_id)
        if metric_id in metric_ids[:index]:
            violations.add(f"{path}[{index}]", "it was named before")
    return tuple(sorted(metric_ids))


def _read_segments(
    violations: Violations, path: str, sent: Sequence[balance_pb2.BalanceSegment]
) -> tuple[SegmentFact, ...]:
    if not sent:
        violations.add(path, "at least one is required")
    if len(sent) > MAX_SEGMENTS:
        violations.add(path, f"there are {len(sent)}; a balance has at most {MAX_SEGMENTS}")
        return ()
    return tuple(_read_segment(violations, f"{path}[{index}]", segment) for index, segment in enumerate(sent))


def _read_segment(violations: Violations, path: str, sent: balance_pb2.BalanceSegment) -> SegmentFact:
    amount = violations.decimal(f"{path}.amount", sent.amount)
    if amount < ZERO:
        violations.add(f"{path}.amount", "it is negative; take back with AdjustBalance")
    start = violations.time(f"{path}.start_time", sent.start_time)
    end = None
    if not sent.HasField("start_time"):
        violations.add(f"{path}.start_time", "it is required")
    if sent.HasField("end_time"):
        end = violations.time(f"{path}.end_time", sent.end_time)
        if sent.HasField("start_time") and end <= start:
            violations.add(f"{path}.end_time", "it is not after start_time")
    return SegmentFact(amount, start, end)


def _seat_message(seat: Seat) -> balance_pb2.BalanceSeat:
    return balance_pb2.BalanceSeat(seat_group_key=seat.key, seat_group_value=seat.value)


def _segment_message(segment: StoredSegment) -> balance_pb2.BalanceSegment:
    end = segment.fact.end_time
    return balance_pb2.BalanceSegment(
        amount=format_decimal(segment.fact.amount),
        start_time=to_timestamp(segment.fact.start_time),
        end_time=None if end is None else to_timestamp(end),
        segment_number=segment.segment_number,
        granted=format_decimal(segment.granted),
        drawn=format_decimal(segment.drawn),
        remaining=format_decimal(segment.remaining),
        held=format_decimal(segment.held),
    )


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    with exact_arithmetic():
        return sum(amounts, ZERO)
