"""Entries of the audit log as messages, and the filters of requests for them."""

from google.protobuf.timestamp_pb2 import Timestamp

from generated.tidemark.v1 import audit_entry_pb2, audit_service_pb2, role_pb2
from server.calls.validation import Violations, to_timestamp
from server.mapping.audited_resources import changed_fields, read_state
from store.audit.entries import Actor, ActorKind, ResourceType
from store.audit.log import AuditFilter, StoredEntry
from store.identity.roles import Role

MAX_METHODS = 100  # of one filter

_TYPE_NUMBERS = {
    one: audit_entry_pb2.AuditResourceType.Value(f"AUDIT_RESOURCE_TYPE_{one.value}") for one in ResourceType
}
_TYPES = {number: one for one, number in _TYPE_NUMBERS.items()}
_KIND_NUMBERS = {one: audit_entry_pb2.AuditActorKind.Value(f"AUDIT_ACTOR_KIND_{one.value}") for one in ActorKind}

_Request = audit_service_pb2.ListAuditEntriesRequest | audit_service_pb2.WatchAuditEntriesRequest


def read_filter(violations: Violations, request: _Request) -> AuditFilter:
    """The filters of a list or a stream."""
    types = []
    for index, number in enumerate(request.resource_types):
        if (found := _TYPES.get(number)) is None:
            violations.add(f"resource_types[{index}]", f"{number} is no type of a resource")
        else:
            types.append(found)
    if len(request.methods) > MAX_METHODS:
        violations.add("methods", f"there are {len(request.methods)}; give at most {MAX_METHODS}")
    methods = [
        violations.identifier(f"methods[{index}]", method)
        for index, method in enumerate(request.methods[:MAX_METHODS])
    ]
    return AuditFilter(
        actor_id=violations.identifier("actor_id", request.actor_id, required=False),
        resource_types=tuple(dict.fromkeys(types)),
        resource_id=violations.identifier("resource_id", request.resource_id, required=False),
        customer_id=violations.identifier("customer_id", request.customer_id, required=False),
        methods=tuple(dict.fromkeys(methods)),
    )


def entry_message(entry: StoredEntry) -> audit_entry_pb2.AuditEntry:
    """The message for an entry."""
    cause, changed = entry.cause, entry.changed
    before = None if changed.before is None else read_state(changed.before)
    after = None if changed.after is None else read_state(changed.after)
    return audit_entry_pb2.AuditEntry(
        entry_number=entry.entry_number,
        create_time=_time(entry),
        actor=_actor_message(cause.actor),
        method=cause.method,
        origin=audit_entry_pb2.AuditOrigin(
            peer=cause.peer,
            client_identity=cause.client_identity,
            user_agent=cause.user_agent,
            request_id=cause.request_id,
        ),
        resource_type=_TYPE_NUMBERS[changed.resource_type],
        resource_id=changed.resource_id,
        customer_id=changed.customer_id,
        before=before,
        after=after,
        changed_fields=dict.fromkeys((*changed_fields(before, after), *changed.hidden_fields)),
        abridged=changed.abridged,
        erased=entry.erased,
    )


def _time(entry: StoredEntry) -> Timestamp:
    return to_timestamp(entry.create_time)


def _actor_message(actor: Actor) -> audit_entry_pb2.AuditActor:
    return audit_entry_pb2.AuditActor(
        kind=_KIND_NUMBERS[actor.kind],
        actor_id=actor.actor_id,
        display_name=actor.name,
        identity=actor.identity,
        roles=[role_pb2.Role.Value(f"ROLE_{name}") for name in actor.roles if name in Role.__members__],
    )
