"""What the calls of LimitService that decide share: the wait for room, the quota of events, and the engine."""

from collections.abc import Sequence

from engine.enforcement.requests import Decided, Request
from engine.ingest.pending import Room
from engine.quotas.organization_quotas import OrganizationQuotas
from evaluator.enforcement.decisions import Decision, OveragePolicy
from generated.tidemark.v1 import limit_service_pb2 as messages
from runtime.quotas import QuotaKind
from server.calls.current_call import current_organization
from server.calls.few_at_once import FewAtOnce
from server.enforcement.engine import Checker, Decider
from server.enforcement.reading import Check
from store.identity.organizations import Organization


class Deciding:
    """Submits requests of calls to the engine."""

    def __init__(self, decider: Decider, checker: Checker, quotas: OrganizationQuotas) -> None:
        self._decider = decider
        self._checker = checker
        self._quotas = quotas
        self._few = FewAtOnce()

    async def decide(self, request: Request) -> Decided:
        """The answer to the one request of a call. Raises why it cannot be decided, Overloaded and QuotaReached."""
        organization = current_organization()
        async with self._few.turn(organization.organization_id):
            room = await self._decider.admit(organization, 1)
            try:
                self._quotas.use(organization.organization_id).take(QuotaKind.EVENTS_PER_SECOND, 1)
                [answer] = await self._decider.submit(organization, [request], room)
            finally:
                room.give_up()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def admit(self, organization: Organization, message: messages.EnforceUsageRequest) -> Room:
        """Room for the requests of a message of a stream, when it is there and their quota allows them."""
        changes = sum(one.WhichOneof("request") != "check" for one in message.requests)
        await self._quotas.use(organization.organization_id).take_in_turn(QuotaKind.EVENTS_PER_SECOND, changes)
        return await self._decider.admit(organization, len(message.requests), waits=True)

    async def answer(
        self, organization: Organization, requests: Sequence[Request | Check], room: Room
    ) -> Sequence[Decided | Decision | Exception]:
        """The answers to the valid requests of a message, in their order. room: as of `Decider.submit`.

        Checks are read when all that the message changes is durable.
        """
        changes = [one for one in requests if not isinstance(one, Check)]
        decided = await self._decider.submit(organization, changes, room) if changes else ()
        if len(changes) == len(requests):
            return decided
        checked: dict[int, Decision | Exception] = {}
        by_policy: dict[OveragePolicy, list[int]] = {}
        for index, one in enumerate(requests):
            if isinstance(one, Check):
                by_policy.setdefault(one.policy, []).append(index)
        for policy, indexes in by_policy.items():
            usages = [one.usage for index in indexes if isinstance(one := requests[index], Check)]
            checked.update(zip(indexes, await self._checker.check(organization, usages, policy), strict=True))
        remaining = iter(decided)
        return [checked[index] if index in checked else next(remaining) for index in range(len(requests))]
