"""States of resources as JSON, of changes that are made where there are no messages of the contract.

Each is an AuditedResource of the contract in its JSON form, and has only the fields that matter for the change.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from runtime.quotas import Quotas

_REASON = "CUSTOMER_ALERT_DISABLED_REASON_GROUP_LIMIT"


def endpoint_enabled(endpoint_id: str) -> bytes:
    """An endpoint that is enabled."""
    return _encoded("endpoint", endpointId=endpoint_id, state="ENDPOINT_STATE_ENABLED")


def endpoint_disabled(endpoint_id: str, reason: str) -> bytes:
    """An endpoint that is disabled. reason: as `webhooks.health` names it."""
    return _encoded(
        "endpoint", endpointId=endpoint_id, state="ENDPOINT_STATE_DISABLED", disableReason=f"DISABLE_REASON_{reason}"
    )


def too_many_groups(customer_id: str, subscription_id: str | None, now: datetime) -> bytes:
    """The exclusion of a customer that has too many groups."""
    return _encoded(
        "alertExclusion",
        customerId=customer_id,
        subscriptionId=subscription_id or "",
        reason=_REASON,
        createTime=_time(now),
    )


def recharge_policy_enabled(customer_id: str, balance_id: str) -> bytes:
    """A recharge policy that is enabled."""
    return _encoded(
        "rechargePolicy",
        customerId=customer_id,
        balanceId=balance_id,
        state="RECHARGE_POLICY_STATE_ENABLED",
    )


def recharge_policy_disabled(customer_id: str, balance_id: str, reason: str, now: datetime) -> bytes:
    """A recharge policy that has switched itself off. reason: as `evaluator.recharges` names it."""
    return _encoded(
        "rechargePolicy",
        customerId=customer_id,
        balanceId=balance_id,
        state="RECHARGE_POLICY_STATE_DISABLED",
        disabledReason=f"RECHARGE_POLICY_DISABLED_REASON_{reason}",
        disableTime=_time(now),
    )


def api_key(
    key_id: str,
    *,
    display_name: str,
    roles: Sequence[str],
    customer_id: str,
    identity: str,
    expire_time: datetime | None,
    revoke_time: datetime | None,
) -> bytes:
    """An API key, without the key itself. roles: as `store.identity.roles` names them."""
    return _encoded(
        "apiKey",
        keyId=key_id,
        displayName=display_name,
        roles=[f"ROLE_{role}" for role in sorted(roles)],
        customerId=customer_id,
        identity=identity,
        expireTime=_time(expire_time),
        revokeTime=_time(revoke_time),
    )


def quotas(own: Quotas) -> bytes:
    """The own quotas of an organization."""
    limits = [
        {"kind": f"QUOTA_KIND_{kind.name}", "own": True, **({} if limit is None else {"limit": str(limit)})}
        for kind, limit in own.items()
    ]
    return orjson.dumps({"quotas": {"quotas": limits}})


def endpoint_secrets(*, signing_secrets: int, credentials: int) -> bytes:
    """How many stored secrets of endpoints were encrypted again."""
    return orjson.dumps({"endpointSecrets": {"signingSecretCount": signing_secrets, "credentialCount": credentials}})


def _time(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()


def _encoded(resource: str, **fields: Any) -> bytes:
    shown: Mapping[str, Any] = {name: value for name, value in fields.items() if value not in (None, "", [])}
    return orjson.dumps({resource: shown})
