"""Exclusions: customers and subscriptions for which an alert that covers them is disabled."""

from enum import StrEnum
from typing import NamedTuple

MAX_GROUPS = 5_000  # of one alert and customer, or subscription, in one billing period


class ExclusionReason(StrEnum):
    """Why an alert is disabled for a customer or subscription that it covers."""

    GROUP_LIMIT = "GROUP_LIMIT"  # usage had too many groups
    REQUESTED = "REQUESTED"  # a caller asked for it


class Excluded(NamedTuple):
    """An alert and the customer for which it is disabled; with subscription_id only that subscription of it."""

    customer_id: str
    alert_id: str
    subscription_id: str | None
