"""The cause of a change, as the audit log records it."""

import pytest

from server.calls import current_call
from server.calls.current_call import Call, current_cause
from store.audit.entries import Actor, ActorKind, Cause
from store.identity.callers import Caller
from store.identity.organizations import Organization
from store.identity.roles import Role

ACME = Organization(1, "acme")
METHOD = "/tidemark.v1.AccountService/PutPlan"


@pytest.mark.parametrize(
    ("caller", "actor"),
    [
        (Caller(ACME), Actor(ActorKind.ANONYMOUS)),
        (
            Caller(ACME, "key_1", frozenset({Role.READER, Role.EDITOR}), display_name="billing"),
            Actor(ActorKind.API_KEY, "key_1", "billing", "", ("EDITOR", "READER")),
        ),
        (
            Caller(ACME, "key_2", frozenset({Role.ADMIN}), identity="spiffe://acme.test/sa/cart"),
            Actor(ActorKind.CERTIFICATE, "key_2", "", "spiffe://acme.test/sa/cart", ("ADMIN",)),
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, Actor) else "",
)
def test_cause_names_the_actor_and_the_origin_of_the_call(caller: Caller, actor: Actor) -> None:
    current_call.begin(
        Call(METHOD, "req-1", caller, peer="ipv4:10.0.0.1:4", user_agent="grpc-go/1", client_identity="cart.shop")
    )
    assert current_cause() == Cause(actor, METHOD, "ipv4:10.0.0.1:4", "cart.shop", "grpc-go/1", "req-1")
