"""Random stories of a recharged balance on two servers, compared with the reference model after each change."""

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import grpc
import pytest
from hypothesis import HealthCheck, given, settings

from generated.tidemark.v1 import account_service_pb2, recharge_pb2
from runtime.clock import ManualClock
from store.postgres.database import Database
from tests.reference.recharges import PAID, RechargeModel, Terms
from tests.support.balances.recharge_story import (
    START,
    Change,
    Delete,
    Enable,
    Put,
    Report,
    Use,
    Wait,
    apply,
    decimal,
    index_of,
    possible,
    shown,
    stories,
    text,
)
from tests.support.balances.recharging import Recharging, duration
from tests.support.balances.timing import timers_of, work_off
from tests.support.databases import NOON
from tests.support.server.running import reason_of
from tests.support.usage.caller import Caller, beside
from tests.support.usage.organizations import organization

EXAMPLES = int(os.environ.get("TIDEMARK_TEST_EXAMPLES", "8"))  # stories; hundreds take minutes
PARTITIONS_END = datetime(2026, 5, 1, tzinfo=UTC)  # a server that starts at noon has those of April, too
STEPS = int(os.environ.get("TIDEMARK_TEST_STEPS") or "24")  # of a story, at most


@pytest.fixture
async def other(caller: Caller) -> AsyncIterator[Caller]:
    """A caller of a second server on the same database."""
    async with beside(caller) as other:
        yield other


class Run:
    """A story: each change goes to one of the servers, and to the model."""

    def __init__(self, servers: list[Recharging], clock: ManualClock, database: Database) -> None:
        self.model = RechargeModel(clock.now(), START)
        self._servers = servers
        self._clock = clock
        self._database = database
        self._turn = 0
        self._ids: list[str] = []  # of the recharges, in the order of the model's

    @property
    def acme(self) -> Recharging:
        """The customer, on the server whose turn it is."""
        return self._servers[self._turn % len(self._servers)]

    async def change(self, change: Change) -> None:
        """Makes a change that is possible, and compares the answer."""
        self._turn += 1
        found = await self._made(change)
        assert found == apply(self.model, change), change

    async def _made(self, change: Change) -> str:
        acme, name = self.acme, f"change-{self._turn}"
        match change:
            case Use() if change.amount > 0 and self._clock.now() < PARTITIONS_END:
                await acme.spend(name, text(change.amount))
                # The same usage again, on the other server, does not count.
                answer = await self._servers[(self._turn + 1) % len(self._servers)].caller.send(
                    acme.caller.event(name, "1", cost=text(change.amount))
                )
                assert answer.duplicates == 1
            case Use():
                await acme.adjust("prepaid", text(-change.amount), name)
            case Put():
                await acme.caller.accounts.PutRechargePolicy(
                    account_service_pb2.PutRechargePolicyRequest(recharge_policy=policy_of(change.terms)),
                    metadata=acme.caller.metadata,
                )
            case Delete():
                await acme.delete_policy()
            case Enable():
                await acme.enable_policy()
            case Wait():
                self._clock.advance(change.time)
                await work_off(timers_of(self._database, self._clock), self._database, self._clock)
            case Report():
                return await self._reported(change)
        return ""

    async def _reported(self, report: Report) -> str:
        recharge_id = self._ids[index_of(self.model, report)]
        try:
            if report.kind == PAID:
                amount = "" if report.amount is None else text(report.amount)
                answer = await self.acme.paid(recharge_id, amount=amount)
            else:
                answer = await self.acme.failed(recharge_id, permanent=report.permanent)
        except grpc.aio.AioRpcError as error:
            return reason_of(error).removeprefix("ERROR_REASON_")
        return "replayed" if answer.replayed else ""

    async def compare(self) -> None:
        """The balance, all recharges and the policy are those of the model."""
        model, acme = self.model, self.acme
        assert await acme.remaining() == {"prepaid": decimal(model.remaining)}
        stored = {one.recharge_id: one for one in await acme.recharges()}
        self._ids += stored.keys() - set(self._ids)  # a change requests one at most
        found = [
            (
                one.sequence,
                one.attempt,
                one.amount,
                one.remaining,
                recharge_pb2.RechargeState.Name(one.state).removeprefix("RECHARGE_STATE_"),
            )
            for one in map(stored.__getitem__, self._ids)
        ]
        assert found == [one[:5] for one in shown(model)]
        if model.terms is None:
            return
        policy = await acme.get_policy()
        state = recharge_pb2.RechargePolicyState.Name(policy.state).removeprefix("RECHARGE_POLICY_STATE_")
        assert (state, policy.failed_attempts) == (model.state, model.failures)
        waits = recharge_pb2.RechargeWaitReason.Name(policy.wait_reason).removeprefix("RECHARGE_WAIT_REASON_")
        assert waits in ((model.waits[0],) if model.waits else ("UNSPECIFIED", "NONE"))
        if model.waits:
            assert policy.wait_end_time.ToDatetime(model.now.tzinfo) == model.waits[1]

    async def end(self) -> None:
        """Each notification was written once."""
        ids = self._ids
        notified = [
            (kind, None if kind == "policy_disabled" else id) for kind, id in await self.acme.notified_recharges()
        ]
        expected = [(kind, None if index < 0 else ids[index]) for kind, index in self.model.notified]
        assert sorted(notified, key=str) == sorted(expected, key=str)


def policy_of(terms: Terms) -> recharge_pb2.RechargePolicy:
    """The policy of a model."""
    return recharge_pb2.RechargePolicy(
        customer_id="acme",
        balance_id="prepaid",
        below=text(terms.below),
        up_to=None
        if terms.level is None
        else recharge_pb2.RechargeUpTo(level=text(terms.level), min_amount=text(terms.min_amount)),
        fixed=None if terms.fixed is None else recharge_pb2.FixedRecharge(amount=text(terms.fixed)),
        max_amount_per_period="" if terms.max_amount is None else text(terms.max_amount),
        max_count_per_period=terms.max_count or 0,
        cooldown=duration(terms.cooldown),
        failure_cooldown=duration(terms.failure_cooldown),
        max_attempts=terms.max_attempts,
        report_timeout=duration(terms.report_timeout),
    )


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(story=stories(STEPS))
async def test_two_servers_equal_the_reference_model_for_random_recharges(
    caller: Caller, other: Caller, clock: ManualClock, database: Database, story: list[Change]
) -> None:
    clock.set(NOON)
    name, secret = await organization(caller.database_url, clock)
    servers = [Recharging(Caller(one.server, clock, caller.database_url, name, secret)) for one in (caller, other)]
    run = Run(servers, clock, database)
    await servers[0].put("prepaid", text(START), allow_overage=True)
    for change in story:
        if possible(run.model, change):
            await run.change(change)
            await run.compare()
    await run.end()
