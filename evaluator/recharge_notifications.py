"""Notifications about recharges: that one is requested, ended without a report, or that a policy switched itself off.

Webhooks, the stream and the history carry `body()` byte for byte.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from evaluator.amounts import format_decimal
from evaluator.balances import Unit
from evaluator.ids import digest_id
from evaluator.notification_json import format_time, notification_json
from evaluator.notifications import EVENT_TYPES, ID_PREFIX
from evaluator.recharges import CancelReason, DisabledReason, RechargeState

REQUESTED_TYPE = "recharge.requested"
EXPIRED_TYPE = "recharge.expired"
CANCELED_TYPE = "recharge.canceled"
POLICY_DISABLED_TYPE = "recharge.policy_disabled"
RECHARGE_TYPES = (REQUESTED_TYPE, EXPIRED_TYPE, CANCELED_TYPE, POLICY_DISABLED_TYPE)
NOTIFICATION_TYPES = (*EVENT_TYPES, *RECHARGE_TYPES)  # of all notifications, about alerts and recharges

TYPES_OF_STATES = {
    RechargeState.REQUESTED: REQUESTED_TYPE,
    RechargeState.EXPIRED: EXPIRED_TYPE,
    RechargeState.CANCELED: CANCELED_TYPE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RechargeNotification:
    """A recharge was requested, or has ended without a report.

    organization: its id, as text. remaining: of the balance at the request. time: of this notification.
    """

    organization: str
    recharge_id: str
    customer_id: str
    balance_id: str
    unit: Unit
    recharge_sequence: int
    state: RechargeState
    attempt: int
    amount: Decimal
    remaining: Decimal
    request_time: datetime
    expire_time: datetime
    time: datetime
    cancel_reason: CancelReason | None = None

    @property
    def alert_id(self) -> str:
        """It is about no alert."""
        return ""

    @property
    def condition_type(self) -> str:
        """It is about no condition."""
        return ""

    @property
    def gauge_id(self) -> None:
        """It is about no gauge."""
        return

    @property
    def sequence(self) -> int:
        """So it has no number among the notifications of a gauge."""
        return 0

    @property
    def event_type(self) -> str:
        """By the state of the recharge."""
        return TYPES_OF_STATES[self.state]

    @property
    def notification_id(self) -> str:
        """Follows from the organization, the recharge and its state."""
        return digest_id(ID_PREFIX, self.organization, self.recharge_id, self.state)

    def body(self) -> str:
        """The webhook body."""
        data: dict[str, Any] = {
            "recharge_id": self.recharge_id,
            "customer_id": self.customer_id,
            "balance_id": self.balance_id,
            **_unit_json(self.unit),
            "state": self.state.value,
            "sequence": self.recharge_sequence,
            "attempt": self.attempt,
            "amount": format_decimal(self.amount),
            "remaining": format_decimal(self.remaining),
            "request_time": format_time(self.request_time),
            "expire_time": format_time(self.expire_time),
        }
        if self.state is not RechargeState.REQUESTED:
            data["end_time"] = format_time(self.time)
        if self.cancel_reason is not None:
            data["cancel_reason"] = self.cancel_reason.value
        return notification_json(self.notification_id, self.event_type, self.time, data)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDisabledNotification:
    """A policy has switched itself off.

    last_recharge_id: of its last recharge; None if it never requested one.
    """

    organization: str
    policy_id: str
    customer_id: str
    balance_id: str
    unit: Unit
    reason: DisabledReason
    failed_attempts: int
    max_attempts: int
    last_recharge_id: str | None
    time: datetime

    @property
    def alert_id(self) -> str:
        """It is about no alert."""
        return ""

    @property
    def condition_type(self) -> str:
        """It is about no condition."""
        return ""

    @property
    def gauge_id(self) -> None:
        """It is about no gauge."""
        return

    @property
    def sequence(self) -> int:
        """So it has no number among the notifications of a gauge."""
        return 0

    @property
    def event_type(self) -> str:
        """One type, whatever the reason is."""
        return POLICY_DISABLED_TYPE

    @property
    def notification_id(self) -> str:
        """Follows from the organization, the policy, its last recharge, the reason and the time."""
        about = self.policy_id, self.last_recharge_id or "", self.reason, format_time(self.time)
        return digest_id(ID_PREFIX, self.organization, *about)

    def body(self) -> str:
        """The webhook body."""
        data: dict[str, Any] = {
            "customer_id": self.customer_id,
            "balance_id": self.balance_id,
            **_unit_json(self.unit),
            "reason": self.reason.value,
            "failed_attempts": self.failed_attempts,
            "max_attempts": self.max_attempts,
            "disable_time": format_time(self.time),
        }
        if self.last_recharge_id is not None:
            data["last_recharge_id"] = self.last_recharge_id
        return notification_json(self.notification_id, self.event_type, self.time, data)


def _unit_json(unit: Unit) -> dict[str, str]:
    if unit.metric_id is not None:
        return {"metric_id": unit.metric_id}
    return {"currency": unit.currency or ""}
