"""Recharge policies as callers put, switch on and delete them. The transaction must hold the customer's wallet."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, delete, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from evaluator.recharges import (
    POLICY_ID_PREFIX,
    DisabledReason,
    LastResult,
    Policy,
    PolicyState,
    RechargeTerms,
    Standing,
    WaitReason,
    enabled_again,
)
from store.accounts.puts import Put, is_newer
from store.balances import balances
from store.balances.changes import BalanceUnknown, BalanceVoided
from store.ids import random_id
from store.postgres.counting import bounded_count
from store.tables.recharges import recharge_policy
from store.tables.wallets import wallet


class RechargePolicyUnknown(Exception):
    """The balance has no recharge policy."""

    def __init__(self, customer_id: str, balance_id: str) -> None:
        super().__init__(customer_id, balance_id)
        self.customer_id = customer_id
        self.balance_id = balance_id


@dataclass(frozen=True)
class PolicyFact:
    """What the caller states about the recharge policy of a balance."""

    customer_id: str
    balance_id: str
    terms: RechargeTerms
    as_of_time: datetime


@dataclass(frozen=True)
class StoredPolicy:
    """A recharge policy as it is stored."""

    organization_id: int
    policy: Policy
    as_of_time: datetime
    create_time: datetime
    update_time: datetime


async def put(
    connection: AsyncConnection, organization_id: int, fact: PolicyFact, now: datetime
) -> Put[StoredPolicy]:
    """Stores the fact, unless a newer one is stored; an open recharge and the state stay as they are.

    Raises BalanceUnknown and BalanceVoided.
    """
    held = await balances.get(connection, organization_id, fact.customer_id, fact.balance_id)
    if held is None:
        raise BalanceUnknown(fact.customer_id, fact.balance_id)
    if held.void_time is not None:
        raise BalanceVoided(fact.customer_id, fact.balance_id)
    stored = await get(connection, organization_id, fact.customer_id, fact.balance_id)
    if stored is not None and is_newer(stored.as_of_time, fact.as_of_time):
        return Put(stored, superseded=True)
    if stored is None:
        policy = Policy(fact.customer_id, fact.balance_id, random_id(POLICY_ID_PREFIX), fact.terms, Standing())
        result = StoredPolicy(organization_id, policy, fact.as_of_time, now, now)
        await connection.execute(insert(recharge_policy).values(_values(result)))
        await _note(connection, organization_id, fact.customer_id, has_policy=True)
        return Put(result, changed=True)
    changed = stored.policy.terms != fact.terms
    result = replace(
        stored,
        policy=replace(stored.policy, terms=fact.terms),
        as_of_time=fact.as_of_time,
        update_time=now if changed else stored.update_time,
    )
    await connection.execute(
        update(recharge_policy)
        .where(*_key(organization_id, fact.customer_id, fact.balance_id))
        .values(**_terms(fact.terms), as_of_time=result.as_of_time, update_time=result.update_time)
    )
    return Put(result, changed=changed, previous=stored)


async def enable(
    connection: AsyncConnection, organization_id: int, customer_id: str, balance_id: str
) -> Put[StoredPolicy]:
    """Switches a policy on again. Raises RechargePolicyUnknown and BalanceVoided."""
    stored = await get(connection, organization_id, customer_id, balance_id)
    if stored is None:
        raise RechargePolicyUnknown(customer_id, balance_id)
    held = await balances.get(connection, organization_id, customer_id, balance_id)
    if held is not None and held.void_time is not None:
        raise BalanceVoided(customer_id, balance_id)
    if stored.policy.standing.state is PolicyState.ENABLED:
        return Put(stored)
    standing = enabled_again(stored.policy.standing)
    await connection.execute(
        update(recharge_policy)
        .where(*_key(organization_id, customer_id, balance_id))
        .values(**standing_values(standing))
    )
    result = replace(stored, policy=replace(stored.policy, standing=standing))
    return Put(result, changed=True, previous=stored)


async def remove(
    connection: AsyncConnection, organization_id: int, customer_id: str, balance_id: str
) -> StoredPolicy | None:
    """Deletes a policy; returns it, or None if there was none. Its open recharge is the caller's to cancel."""
    stored = await get(connection, organization_id, customer_id, balance_id)
    if stored is None:
        return None
    await connection.execute(delete(recharge_policy).where(*_key(organization_id, customer_id, balance_id)))
    left = select(recharge_policy.c.balance_id).where(
        recharge_policy.c.organization_id == organization_id, recharge_policy.c.customer_id == customer_id
    )
    if (await connection.scalar(left.limit(1))) is None:
        await _note(connection, organization_id, customer_id, has_policy=False)
    return stored


async def get(
    connection: AsyncConnection, organization_id: int, customer_id: str, balance_id: str
) -> StoredPolicy | None:
    """The recharge policy of a balance, or None."""
    rows = await connection.execute(select(recharge_policy).where(*_key(organization_id, customer_id, balance_id)))
    row = rows.mappings().one_or_none()
    return None if row is None else _stored(row)


@dataclass(frozen=True)
class PolicyFilter:
    """Which policies to list. None: all."""

    customer_id: str | None = None
    state: PolicyState | None = None


async def list_page(
    connection: AsyncConnection,
    organization_id: int,
    wanted: PolicyFilter,
    *,
    after: tuple[str, str] | None,
    limit: int,
) -> list[StoredPolicy]:
    """Up to `limit` policies by customer id and balance id. after: the key of the last one of the page before."""
    statement = select(recharge_policy).where(*_selected(organization_id, wanted))
    if after is not None:
        statement = statement.where(tuple_(recharge_policy.c.customer_id, recharge_policy.c.balance_id) > after)
    order = recharge_policy.c.customer_id, recharge_policy.c.balance_id
    rows = await connection.execute(statement.order_by(*order).limit(limit))
    return [_stored(row) for row in rows.mappings()]


async def count(connection: AsyncConnection, organization_id: int, wanted: PolicyFilter) -> int:
    """How many policies `list_page` returns on all pages, see `bounded_count`."""
    return await bounded_count(connection, recharge_policy, *_selected(organization_id, wanted))


def _selected(organization_id: int, wanted: PolicyFilter) -> list[ColumnElement[bool]]:
    conditions = [recharge_policy.c.organization_id == organization_id]
    if wanted.customer_id is not None:
        conditions.append(recharge_policy.c.customer_id == wanted.customer_id)
    if wanted.state is not None:
        conditions.append(recharge_policy.c.state == wanted.state.value)
    return conditions


def _key(organization_id: int, customer_id: str, balance_id: str) -> tuple[ColumnElement[bool], ...]:
    return (
        recharge_policy.c.organization_id == organization_id,
        recharge_policy.c.customer_id == customer_id,
        recharge_policy.c.balance_id == balance_id,
    )


async def _note(connection: AsyncConnection, organization_id: int, customer_id: str, *, has_policy: bool) -> None:
    """Notes in the wallet whether the customer has a policy."""
    await connection.execute(
        update(wallet)
        .where(wallet.c.organization_id == organization_id, wallet.c.customer_id == customer_id)
        .values(has_recharge_policy=has_policy)
    )


def _values(stored: StoredPolicy) -> dict[str, Any]:
    policy = stored.policy
    return {
        "organization_id": stored.organization_id,
        "customer_id": policy.customer_id,
        "balance_id": policy.balance_id,
        "policy_id": policy.policy_id,
        **_terms(policy.terms),
        "as_of_time": stored.as_of_time,
        "create_time": stored.create_time,
        "update_time": stored.update_time,
        **standing_values(policy.standing),
    }


def _terms(terms: RechargeTerms) -> dict[str, Any]:
    return {
        "below": terms.below,
        "up_to": terms.up_to,
        "fixed_amount": terms.fixed,
        "min_amount": terms.min_amount,
        "max_amount": terms.max_amount,
        "max_count": terms.max_count,
        "cooldown": terms.cooldown,
        "failure_cooldown": terms.failure_cooldown,
        "max_attempts": terms.max_attempts,
        "report_timeout": terms.report_timeout,
    }


def standing_values(standing: Standing) -> dict[str, Any]:
    """The columns of a policy that say where it stands."""
    return {
        "state": standing.state.value,
        "disabled_reason": standing.disabled_reason and standing.disabled_reason.value,
        "disable_time": standing.disable_time,
        "failed_attempts": standing.failed_attempts,
        "last_sequence": standing.last_sequence,
        "open_recharge_id": standing.open_recharge_id,
        "last_result": standing.last_result and standing.last_result.value,
        "last_end_time": standing.last_end_time,
        "wait_reason": standing.wait_reason and standing.wait_reason.value,
        "wait_end_time": standing.wait_end_time,
        "due_time": standing.due_time,
    }


def policy_of(row: Mapping[str, Any]) -> Policy:
    """The policy in the columns of its table."""
    return Policy(
        customer_id=row["customer_id"],
        balance_id=row["balance_id"],
        policy_id=row["policy_id"],
        terms=RechargeTerms(
            below=row["below"],
            up_to=row["up_to"],
            fixed=row["fixed_amount"],
            min_amount=row["min_amount"],
            max_amount=row["max_amount"],
            max_count=row["max_count"],
            cooldown=row["cooldown"],
            failure_cooldown=row["failure_cooldown"],
            max_attempts=row["max_attempts"],
            report_timeout=row["report_timeout"],
        ),
        standing=Standing(
            state=PolicyState(row["state"]),
            disabled_reason=None if (found := row["disabled_reason"]) is None else DisabledReason(found),
            disable_time=row["disable_time"],
            failed_attempts=row["failed_attempts"],
            last_sequence=row["last_sequence"],
            open_recharge_id=row["open_recharge_id"],
            last_result=None if (found := row["last_result"]) is None else LastResult(found),
            last_end_time=row["last_end_time"],
            wait_reason=None if (found := row["wait_reason"]) is None else WaitReason(found),
            wait_end_time=row["wait_end_time"],
            due_time=row["due_time"],
        ),
    )


def _stored(row: RowMapping) -> StoredPolicy:
    policy = policy_of(dict(row))
    return StoredPolicy(row["organization_id"], policy, row["as_of_time"], row["create_time"], row["update_time"])
