"""An entry of the audit log, as the transaction of a change writes it."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

Stored = TypeVar("Stored", contravariant=True)

MAX_TEXT = 256  # characters of what callers send of themselves
MAX_ACTOR_ID = 128  # characters


class ActorKind(StrEnum):
    """How the actor of a change was identified."""

    API_KEY = "API_KEY"
    CERTIFICATE = "CERTIFICATE"
    COMMAND_LINE = "COMMAND_LINE"
    SERVICE = "SERVICE"
    ANONYMOUS = "ANONYMOUS"


class ResourceType(StrEnum):
    """The type of a resource that can change."""

    ALERT = "ALERT"
    CUSTOMER = "CUSTOMER"
    SUBSCRIPTION = "SUBSCRIPTION"
    METRIC = "METRIC"
    PLAN = "PLAN"
    LIMIT = "LIMIT"
    BALANCE = "BALANCE"
    INVOICE = "INVOICE"
    USAGE_EVENT = "USAGE_EVENT"
    ERASURE_JOB = "ERASURE_JOB"
    ENDPOINT = "ENDPOINT"
    DELIVERY = "DELIVERY"
    REDELIVERY_JOB = "REDELIVERY_JOB"
    API_KEY = "API_KEY"
    QUOTAS = "QUOTAS"
    ENDPOINT_SECRETS = "ENDPOINT_SECRETS"
    RECHARGE_POLICY = "RECHARGE_POLICY"
    RECHARGE = "RECHARGE"


# Their ids are made by Tidemark, and say nothing about a customer.
WITH_ASSIGNED_IDS = (
    ResourceType.ALERT,
    ResourceType.ERASURE_JOB,
    ResourceType.ENDPOINT,
    ResourceType.DELIVERY,
    ResourceType.REDELIVERY_JOB,
    ResourceType.API_KEY,
    ResourceType.QUOTAS,
    ResourceType.ENDPOINT_SECRETS,
    ResourceType.RECHARGE,
)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who made a change. actor_id: of the API key, or the user and host of a command. name: of the key."""

    kind: ActorKind
    actor_id: str = ""
    name: str = ""
    identity: str = ""
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cause:
    """Who made a change, by which method, and from where. method: of an RPC, or a command.

    peer: the address as gRPC names it. client_identity: of the client's certificate.
    """

    actor: Actor
    method: str
    peer: str = ""
    client_identity: str = ""
    user_agent: str = ""
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class Changed:
    """What changed. customer_id: the customer that it belongs to; empty if to none.

    before, after: an AuditedResource of the contract, in binary form, or as JSON, which begins with a brace. No
    message in binary form begins so: it would be the start of a group, which the contract has none of. hidden_fields:
    fields that changed, and are not in before and after.
    """

    resource_type: ResourceType
    resource_id: str
    customer_id: str = ""
    before: bytes | None = None
    after: bytes | None = None
    hidden_fields: tuple[str, ...] = ()
    abridged: bool = False


@dataclass(frozen=True, slots=True)
class NewEntry:
    """A change, and its cause."""

    cause: Cause
    changed: Changed


# Makes the entry of a change from what was stored before and after it; before is None for what is new.
Describe = Callable[[Stored | None, Stored], NewEntry]

SERVER = Cause(Actor(ActorKind.SERVICE), "tidemark serve")
NOTIFIER = Cause(Actor(ActorKind.SERVICE), "tidemark notify")
